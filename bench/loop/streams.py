"""What a loop makes of streams whose truth is known, beside three simple ways to keep a model.

`regret` is what the answers cost more than the oracle's, who says each question's own chance: the mean divergence of the two
(nats), so no luck of the labels is in it. It counts from the day after the first model, which is the same for all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from generated import BEGAN, DAYS, SEED, STREAMS, Generated, generated
from models import Floats
from peers import Kept, every_alarm, never, weekly
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from millstream.contracts.events import (
    Decision,
    Finding,
    RetrainDecided,
    RolloutMoved,
    Step,
    TrainingFinished,
    WindowJudged,
)
from millstream.contracts.tasks import PROBABILITY, SMALLEST
from millstream.contracts.times import DAY, HOUR, from_datetime
from millstream.project import Loop
from millstream_backtest.past import Past
from millstream_backtest.replay import Replay
from millstream_backtest.runs import RunFolder

HERE = Path(__file__).parent
OUT = HERE.parent / "out"
ALARMS = (Finding.DETECTED, Finding.PERFORMANCE_DROP)
PEERS: dict[str, Callable[[Generated, Past, Loop], Kept]] = {
    "never": never,
    "weekly": weekly,
    "every_alarm": every_alarm,
}
POLICIES = ("ours", *PEERS)


def policy() -> Loop:
    return Loop.model_validate(YAML(typ="safe").load(HERE / "streams.yaml"))


def ours(stream: Generated, past: Past, loop: Loop) -> tuple[Kept, dict[str, Any], list[dict[str, Any]]]:
    """The loop itself, by a backtest: what it came to, what it decided, and its timeline."""
    logging.disable(logging.ERROR)  # what services log a person reads in the timeline
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        replay = Replay(
            loop, past, tick=HOUR, project=place, packages=place / "models", runs=RunFolder(place / "runs"), threads=1
        )
        asyncio.run(replay.run(since=BEGAN, until=BEGAN + (DAYS + 2) * DAY))
    events = [event for event, _ in replay.journal.told]
    runs = [_day(e.at) for e in events if isinstance(e, RetrainDecided) and e.decision is Decision.ACCEPTED]
    outputs = [np.nan if output is None else output[PROBABILITY] for output in replay.outputs]
    kept = Kept(
        answers=np.array(outputs),
        detected=[_day(e.at) for e in events if isinstance(e, WindowJudged) and e.finding in ALARMS],
        retrains=runs[1:],
    )
    moves = [event for event in events if isinstance(event, RolloutMoved)]
    decided: dict[str, Any] = {
        "promotions": sum(one.step is Step.CHAMPION and one.before is not Step.CHAMPION for one in moves) - 1,
        "rejections_by_gate": sum(isinstance(e, TrainingFinished) and e.outcome == "rejected" for e in events),
        "rejections_on_trial": sum(one.step is Step.REJECTED for one in moves),
        "rollbacks": sum(one.step is Step.ROLLED_BACK for one in moves),
        "failed_runs": sum(isinstance(e, TrainingFinished) and e.outcome == "failed" for e in events),
    }
    if stream.broken is not None:
        first, last = stream.broken
        # A run at the very midnight at which the producer breaks has seen nothing of it.
        decided["runs_on_broken_data"] = sum(first < day < last for day in runs)
    return kept, decided, replay.journal.timeline()


def measured(stream: Generated, kept: Kept, loop: Loop) -> dict[str, Any]:
    """The line of one policy."""
    answered = np.flatnonzero(np.isfinite(kept.answers))
    counts = np.arange(int(np.searchsorted(stream.days, np.ceil(stream.days[answered[0]]) + 1)), len(stream.days))
    assert np.isfinite(kept.answers[counts]).all(), "a question went without an answer"
    false = [day for day in kept.detected if not stream.in_truth(day)]
    found: dict[str, Any] = {
        "regret": float(divergence(stream.chance[counts], kept.answers[counts]).mean()),
        "detection_delay": _delay(stream, kept),
        "false_alarms_per_100k": 100_000 * len(false) / len(counts),
        "retrains": len(kept.retrains),
    }
    return found


def divergence(chance: Floats, answers: Floats) -> Floats:
    """Expected log loss of each answer above the oracle's, nats."""
    said = np.clip(answers, SMALLEST, 1 - SMALLEST)
    found: Floats = chance * np.log(chance / said) + (1 - chance) * np.log((1 - chance) / (1 - said))
    return found


def _delay(stream: Generated, kept: Kept) -> int | None:
    """Questions from the first change to the first alarm after it; None: nothing changed, or nobody noticed."""
    if not stream.changes:
        return None
    changed = stream.changes[0][0]
    after = [day for day in kept.detected if day >= changed]
    return int(np.searchsorted(stream.days, after[0]) - np.searchsorted(stream.days, changed)) if after else None


def play(name: str, seed: int) -> dict[str, Any]:
    """One stream under all policies."""
    loop, stream = policy(), generated(name, seed=seed)
    past = stream.past()
    kept, decided, timeline = ours(stream, past, loop)
    all_kept = {"ours": kept, **{peer: run(stream, past, loop) for peer, run in PEERS.items()}}
    figures = {one: measured(stream, what, loop) for one, what in all_kept.items()}
    figures["ours"] |= decided
    days = {one: _by_day(stream, what.answers) for one, what in all_kept.items()}
    return {"figures": figures, "regret_by_day": days, "timeline": timeline}


def _by_day(stream: Generated, answers: Floats) -> list[float | None]:
    lost = divergence(stream.chance, answers)
    days = stream.days.astype(int)
    means = [lost[days == day].mean() for day in range(DAYS)]
    return [float(mean) if np.isfinite(mean) else None for mean in means]


def _day(at: Any) -> float:
    return (from_datetime(at) - BEGAN) / DAY


def run(names: tuple[str, ...] = tuple(STREAMS), seed: int = SEED) -> dict[str, Any]:
    """Per stream and policy the figures; `ours_to_best` is our regret as a share of the smallest one."""
    found = _play_all(names, seed)
    return {name: _with_share(one["figures"]) for name, one in found.items()}


def _with_share(figures: dict[str, Any]) -> dict[str, Any]:
    best = min(one["regret"] for one in figures.values())
    return {**figures, "ours_to_best": figures["ours"]["regret"] / best}


def _play_all(names: tuple[str, ...], seed: int) -> dict[str, dict[str, Any]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A fork would take over the locks of other libraries' threads.
    with ProcessPoolExecutor(min(cores, len(names)), mp_context=get_context("spawn")) as pool:
        return dict(zip(names, pool.map(play, names, repeat(seed)), strict=True))


def shown(figures: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("stream", "policy", "regret", "of the best", "delay", "false alarms\nper 100k", "runs"):
        table.add_column(column, justify="left" if column in ("stream", "policy") else "right")
    for name, one in figures.items():
        best = min(one[policy]["regret"] for policy in POLICIES)
        for policy in POLICIES:
            line = one[policy]
            delay = "–" if line["detection_delay"] is None else f"{line['detection_delay']:,}"
            regret, share = f"{line['regret']:.5f}", f"{line['regret'] / best:.2f}"
            alarms = "–" if policy in ("never", "weekly") else f"{line['false_alarms_per_100k']:.0f}"
            table.add_row(name if policy == "ours" else "", policy, regret, share, delay, alarms, str(line["retrains"]))
    return table


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Regret by day, a panel for each stream."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.3 * len(found)), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, (name, one) in zip(panels, found.items(), strict=True):
        for policy in POLICIES:
            regrets = [np.nan if loss is None else loss for loss in one["regret_by_day"][policy]]
            axes.plot(range(DAYS), regrets, label=policy, linewidth=1.8 if policy == "ours" else 1.0)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    panels[0].legend(ncols=len(POLICIES), fontsize=8)
    figure.supylabel("nats above the oracle")
    figure.supxlabel("day")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("streams", nargs="*", default=list(STREAMS))
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()
    found = _play_all(tuple(asked.streams), asked.seed)
    OUT.mkdir(exist_ok=True)
    (OUT / "streams.json").write_text(json.dumps(found, indent=1, default=str))
    draw(found, OUT / "streams.svg")
    Console(width=100).print(shown({name: _with_share(one["figures"]) for name, one in found.items()}))
    for name, one in found.items():
        print(name, one["figures"]["ours"])


if __name__ == "__main__":
    main()
