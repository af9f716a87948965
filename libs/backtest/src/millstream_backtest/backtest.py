"""A backtest from its beginning to its figures: read the past once, replay every policy, compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from millstream.contracts.times import to_rfc3339
from millstream.project import Project
from millstream_backtest.errors import BacktestFailed
from millstream_backtest.figures import Figures
from millstream_backtest.past import Past
from millstream_backtest.policies import Policy
from millstream_backtest.reading import read_past
from millstream_backtest.recorded_lake import recorded_lake
from millstream_backtest.work import Span, play_all

__all__ = ["Figures", "Recorded", "Wanted", "backtest"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """Events of a recording: stream → its events, `known_at` (int64 microseconds) beside their fields."""

    events: Mapping[str, pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of the past is to be replayed, and what counts; microseconds. None: all there is."""

    tick: int
    since: int | None = None
    until: int | None = None
    scored_from: int | None = None
    zone: str = "UTC"


def backtest(
    project: Project,
    policies: Sequence[Policy],
    source: Recorded | str,
    wanted: Wanted,
    *,
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
    hear: Callable[[str, float], None] = lambda policy, done: None,
) -> list[Figures]:
    """The figures of every policy, in their order. `source` is a recording or the address of a lake; `folder` keeps what can
    be used again. `say` hears what is done, `hear` how far each policy is (0 to 1).

    Raises BacktestFailed, TilesError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Recorded):
        say("writing the recording as a lake")
        source = recorded_lake(project, source.events, folder, tick=wanted.tick)
    read: dict[str, Past] = {}
    pasts: dict[str, Past] = {}
    for policy in policies:
        # Policies that ask alike share what they read; most do.
        asks = policy.loop.model_dump_json(include={"predict": True, "label": True, "rollout": {"by"}})
        if asks not in read:
            say(f"reading the features of all questions{'' if not read else f' as {policy.name} asks them'}")
            read[asks] = read_past(project, policy.loop, source, folder)
        pasts[policy.name] = read[asks]
        if policy.loop.drift.content:
            names = ", ".join(policy.loop.drift.content)
            say(
                f"{policy.name}: {names}: texts and embeddings are not judged in a backtest; live, they may ask for retrains"
            )
    span = _span(pasts[policies[0].name], wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return play_all(policies, pasts, span, project=project.path, folder=folder, cores=cores, hear=hear)


def _span(past: Past, wanted: Wanted) -> Span:
    first, last = int(past.known_at[0]), int(past.known_at[-1])
    since = first if wanted.since is None else wanted.since
    # To the end of the last label, so that the last questions have theirs.
    end = max(last, past.labels[-1].time) + wanted.tick
    until = end if wanted.until is None else min(wanted.until, end)
    if since >= until or since > last or until <= first:
        raise BacktestFailed(
            f"nothing was asked from {to_rfc3339(since)} to {to_rfc3339(until)}; "
            f"the questions are of {to_rfc3339(first)} to {to_rfc3339(last)}"
        )
    scored_from = since if wanted.scored_from is None else wanted.scored_from
    return Span(since=since, until=until, tick=wanted.tick, scored_from=scored_from, zone=wanted.zone)
