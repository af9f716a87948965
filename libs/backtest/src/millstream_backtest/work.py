"""One process per policy: replays it, tells how far it is, and hands its figures over."""

from __future__ import annotations

import logging
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from millstream.errors import MillstreamError
from millstream_backtest.errors import BacktestFailed
from millstream_backtest.figures import Figures, figures_of
from millstream_backtest.past import Past
from millstream_backtest.policies import Policy
from millstream_backtest.replay import Replay
from millstream_backtest.runs import RunFolder

OFTEN = 0.2
"""Seconds between two words on progress: often enough for a bar, too rare to cost anything."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """What is replayed, in which steps, and what counts; microseconds."""

    since: int
    until: int
    tick: int
    scored_from: int
    zone: str
    """IANA name: in which months are counted."""


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says."""

    done: float = 0.0
    """Share of the span."""
    figures: Figures | None = None
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where policies work."""

    project: Path
    packages: Path
    """Of this backtest: gone when it ends."""
    runs: Path
    """Kept from one backtest to the next."""
    threads: int


def play(policy: Policy, past: Past, span: Span, place: Place, hear: Callable[[float], None]) -> Figures:
    """One policy, in this process; `hear` is told the share of the span that is done."""
    began, spent = time.perf_counter(), time.process_time()
    replay = Replay(
        policy.loop,
        past,
        tick=span.tick,
        project=place.project,
        packages=Path(tempfile.mkdtemp(dir=place.packages)),
        runs=RunFolder(place.runs),
        threads=place.threads,
    )

    def on_step(at: int) -> None:
        hear((at - span.since) / max(1, span.until - span.since))

    uvloop.run(replay.run(since=span.since, until=span.until, on_step=on_step))
    return figures_of(
        replay,
        policy=policy.name,
        since=span.since,
        until=span.until,
        scored_from=span.scored_from,
        zone=span.zone,
        seconds=time.perf_counter() - began,
        spent_cpu_seconds=time.process_time() - spent,
    )


def play_all(
    policies: Sequence[Policy],
    pasts: Mapping[str, Past],
    span: Span,
    *,
    project: Path,
    folder: Path,
    cores: int,
    hear: Callable[[str, float], None],
) -> list[Figures]:
    """All policies, as many at a time as there are cores; `pasts` by policy. Figures come in the policies' order.

    Whatever ends it, Ctrl-C too, no process is left. Raises BacktestFailed naming the policy that could not be replayed.
    """
    at_once = min(cores, len(policies))
    packages = tempfile.TemporaryDirectory(dir=folder, prefix="packages-", ignore_cleanup_errors=True)
    place = Place(project=project, packages=Path(packages.name), runs=folder / "runs", threads=max(1, cores // at_once))
    context = get_context("spawn")  # a fork would take over the locks of Polars' threads
    waiting, found = list(policies), dict[str, Figures]()
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                policy = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                given = (sender, policy, pasts[policy.name], span, place)
                process = context.Process(target=_work, args=given, daemon=True)
                process.start()
                sender.close()
                running[receiver] = policy.name, process
            for ready in wait(list(running)):
                receiver = cast(Connection, ready)
                name, process = running[receiver]
                try:
                    word = msgspec.json.decode(receiver.recv_bytes(), type=Word)
                except EOFError:
                    process.join()
                    raise BacktestFailed(f"policy {name}: its process ended with code {process.exitcode}") from None
                if word.failed:
                    raise BacktestFailed(f"policy {name}: {word.failed}")
                hear(name, word.done)
                if word.figures is not None:
                    found[name] = word.figures
                    process.join()
                    del running[receiver]
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
        packages.cleanup()
    return [found[policy.name] for policy in policies]


def _work(sender: Connection, policy: Policy, past: Past, span: Span, place: Place) -> None:
    """Target of the process. It ends with its parent: nobody is there to hear the next word then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    logging.disable(logging.ERROR)  # what services log a person reads in the timeline
    said = 0.0

    def hear(done: float) -> None:
        nonlocal said
        if time.monotonic() - said > OFTEN:
            said = time.monotonic()
            sender.send_bytes(msgspec.json.encode(Word(done=done)))

    try:
        word = Word(done=1.0, figures=play(policy, past, span, place, hear))
    except (MillstreamError, OSError) as error:
        word = Word(failed=str(error))
    sender.send_bytes(msgspec.json.encode(word))
