"""What a policy came to: what was decided, how good its answers were, and which of its promotions did harm."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import (
    Decision,
    Outcome,
    RetrainDecided,
    RolloutMoved,
    Step,
    TrainingFinished,
)
from millstream.contracts.tasks import PROBABILITY, Task, Truth, row_loss
from millstream.contracts.times import DAY, from_datetime, to_datetime
from millstream_backtest.past import NEVER
from millstream_backtest.replay import Replay
from millstream_serving.domain.scores import Output
from millstream_trainer.domain.metrics import auc

LOOKED_AT = 30 * DAY
"""How long after a promotion both versions are compared: about what a scheduled retrain lasts."""
FEWEST = 200
"""Labelled questions below which a promotion is not called harmful, as the gate asks for so many."""


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """Questions asked in one month that were answered and have their label."""

    month: str
    questions: int
    loss: float


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that came to answer instead of another; both losses are of the same questions, the 30 days after."""

    version: str
    replaced: str
    at: datetime
    questions: int
    loss: float
    loss_replaced: float
    harmful: bool


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The line of one policy, and what it was made of."""

    policy: str
    questions: int
    answered: int
    scored: int
    """Answered, labelled in time, and asked when it counts."""
    loss: float | None
    """Mean loss of the task: log loss, or squared error. None where nothing was scored."""
    auc: float | None
    """Binary only."""
    retrains: int
    promotions: int
    rejections_by_gate: int
    rejections_on_trial: int
    failed_runs: int
    rollbacks: int
    harmful_promotions: int
    cpu_seconds: float
    """What the policy costs: the CPU seconds of its runs, also of those that were made before and are shared."""
    seconds: float
    """Of this backtest, by the clock; `training_seconds` of them waiting for runs."""
    training_seconds: float
    spent_cpu_seconds: float
    """Of this backtest: less than `cpu_seconds` where runs are shared."""
    runs_found: int
    """Runs that another policy, or an earlier backtest, had made already."""
    months: list[Month]
    promoted: list[Promotion]
    """Those that replaced somebody."""
    timeline: list[dict[str, Any]]

    @property
    def answered_share(self) -> float:
        return self.answered / self.questions if self.questions else 0.0


def figures_of(
    replay: Replay,
    *,
    policy: str,
    since: int,
    until: int,
    scored_from: int,
    zone: str,
    seconds: float,
    spent_cpu_seconds: float,
) -> Figures:
    """The figures of a replay that was run from `since` to `until`; answers to questions before `scored_from` do not count."""
    events = [event for event, _ in replay.journal.told]
    moves = [event for event in events if isinstance(event, RolloutMoved)]
    finished = [event.outcome for event in events if isinstance(event, TrainingFinished)]
    promoted = [_promotion(replay, moved, until) for moved in moves if _is_promotion(moved)]
    compared = [one for one in promoted if one is not None]
    asked = np.arange(*np.searchsorted(replay.past.known_at, [since, until], side="left"))
    answered = np.array([row for row in asked.tolist() if replay.outputs[row] is not None], dtype=np.int64)
    counted = _labelled(replay, answered[replay.past.known_at[answered] >= scored_from], until)
    outputs = [replay.outputs[row] for row in counted.tolist()]
    losses, truths = _losses(replay, counted, outputs)
    return Figures(
        policy=policy,
        questions=len(asked),
        answered=len(answered),
        scored=len(counted),
        loss=float(losses.mean()) if len(losses) else None,
        auc=_auc(replay, outputs, truths),
        retrains=sum(isinstance(e, RetrainDecided) and e.decision is Decision.ACCEPTED for e in events),
        promotions=sum(map(_is_promotion, moves)),
        rejections_by_gate=finished.count(Outcome.REJECTED),
        rejections_on_trial=sum(moved.step is Step.REJECTED for moved in moves),
        failed_runs=finished.count(Outcome.FAILED),
        rollbacks=sum(moved.step is Step.ROLLED_BACK for moved in moves),
        harmful_promotions=sum(one.harmful for one in compared),
        cpu_seconds=round(replay.runs.cpu_seconds, 1),
        seconds=round(seconds, 1),
        training_seconds=round(replay.runs.seconds, 1),
        spent_cpu_seconds=round(spent_cpu_seconds, 1),
        runs_found=replay.runs.found,
        months=_months(replay.past.known_at[counted], losses, zone),
        promoted=compared,
        timeline=replay.journal.timeline(),
    )


def _is_promotion(moved: RolloutMoved) -> bool:
    """Also a first model's; a champion that only stays is none."""
    return moved.step is Step.CHAMPION and moved.before is not Step.CHAMPION


def _promotion(replay: Replay, moved: RolloutMoved, until: int) -> Promotion | None:
    """None for a first model."""
    state = moved.led_to
    if state is None or state.champion is None or state.previous is None:
        return None
    at = from_datetime(moved.at)
    rows = np.arange(*np.searchsorted(replay.past.known_at, [at, min(at + LOOKED_AT, until)], side="left"))
    rows = _labelled(replay, rows, until)
    answers = zip(*(replay.voice(ref).outputs(rows) for ref in (state.champion, state.previous)), strict=True)
    both = {row: pair for row, pair in zip(rows.tolist(), answers, strict=True) if None not in pair}
    rows = np.array(list(both), dtype=np.int64)
    mine, theirs = (_mean_loss(replay, rows, [pair[side] for pair in both.values()]) for side in (0, 1))
    return Promotion(
        version=state.champion.version,
        replaced=state.previous.version,
        at=moved.at,
        questions=len(rows),
        loss=mine,
        loss_replaced=theirs,
        harmful=len(rows) >= FEWEST and mine > theirs,
    )


def _labelled(replay: Replay, rows: NDArray[np.int64], until: int) -> NDArray[np.int64]:
    known = replay.past.label_known_at[rows]
    found: NDArray[np.int64] = rows[(known < NEVER) & (known <= until)]
    return found


def _mean_loss(replay: Replay, rows: NDArray[np.int64], outputs: list[Output | None]) -> float:
    """0 without rows."""
    losses, _ = _losses(replay, rows, outputs)
    return float(losses.mean()) if len(losses) else 0.0


def _losses(
    replay: Replay, rows: NDArray[np.int64], outputs: list[Output | None]
) -> tuple[NDArray[np.float64], list[Truth]]:
    """The loss of each answer, and what was true; only rows that have an answer."""
    task = Task(replay.loop.model.task)
    truths: list[Truth] = replay.past.dataset.table.labels[rows].tolist()
    losses = [row_loss(task, output or {}, truth) for output, truth in zip(outputs, truths, strict=True)]
    return np.array(losses, dtype=np.float64), truths


def _auc(replay: Replay, outputs: list[Output | None], truths: list[Truth]) -> float | None:
    if Task(replay.loop.model.task) is not Task.BINARY or not outputs:
        return None
    scores = [output[PROBABILITY] for output in outputs if output is not None]
    found = auc(np.array(truths), np.array(scores))
    return found if math.isfinite(found) else None


def _months(times: NDArray[np.int64], losses: NDArray[np.float64], zone: str) -> list[Month]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    place = ZoneInfo(zone)
    for time, loss in zip(times.tolist(), losses.tolist(), strict=True):
        found[f"{to_datetime(time).astimezone(place):%Y-%m}"].append(loss)
    return [Month(month=month, questions=len(some), loss=math.fsum(some) / len(some)) for month, some in found.items()]
