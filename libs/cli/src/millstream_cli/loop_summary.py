"""What one loop did in a replay: its answers and how good they were, its runs, its features online and offline."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from millstream.contracts.events import Decision, ModelState, RetrainDecided, Step
from millstream.contracts.tasks import Task, class_name, metric_of
from millstream.contracts.times import to_rfc3339
from millstream.project import Loop, Project
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.packages import PackageStore
from millstream_cli.comparison import Skew, measure_skew, sample
from millstream_cli.incidents import Fate
from millstream_cli.loop_events import loop_of
from millstream_cli.predictions import OUTPUT, PredictionLog
from millstream_cli.recording import Recording
from millstream_cli.scores import SCORES, Outputs, mean_loss, score
from millstream_cli.static_model import score_static
from millstream_cli.story import Story
from millstream_cli.ticks import Ticks

SKEW_SAMPLE = 4_000
RECOUNT_SAMPLE = 200
"""A recount is slow on purpose: these take two seconds."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the summary reads."""

    kafka: Bootstrap
    lake: str
    packages: str
    registry: Path


def loop_figures(
    project: Project,
    loop: Loop,
    recording: Recording,
    ticks: Ticks,
    log: PredictionLog,
    story: Story,
    places: Places,
    *,
    questions: int,
) -> dict[str, Any]:
    """The figures of one loop, whatever other loops ask of the same stream; `questions`: those of its stream in the lake."""
    figures: dict[str, Any] = {
        "questions_sent": len(ticks.sent(loop.predict.on)),
        "questions": questions,
        "unanswered_no_model": log.unanswered[loop.name],
        "predictions": log.records[loop.name],
        "predictions_effective": log.served[loop.name],
    }
    figures |= quality(loop, recording, log, _labels(loop, places.lake), story, places)
    figures |= decisions(story, loop.name)
    figures |= _skew(project, loop, log, places)
    return figures | _recount(project, loop, log, ticks)


def _labels(loop: Loop, lake: str) -> pl.DataFrame:
    """key, truth (a number, 0 or 1, or the name of a class) and known_at (microseconds) of each key's first event that has a
    label."""
    from millstream_tiles.lake import Lake
    from millstream_tiles.lake_reader import read_events

    fields = sorted({loop.label.by, *loop.label.value.fields})
    rows = read_events(Lake(lake), loop.label.stream, [*fields, "_known_at"])
    names = loop.label.value.fields
    values = rows.select(names).rows()
    truth = {row: loop.label.value(dict(zip(names, row, strict=True))) for row in set(values)}
    classes = loop.model.task is Task.MULTICLASS
    plain = class_name if classes else float
    known = {row: None if value is None else plain(value) for row, value in truth.items()}
    columns = {
        "key": rows[loop.label.by].cast(pl.String),
        "truth": pl.Series([known[row] for row in values], dtype=pl.String if classes else pl.Float64),
        "known_at": rows["_known_at"].dt.epoch("us"),
    }
    return pl.DataFrame(columns).drop_nulls().unique("key", keep="first", maintain_order=True)


def quality(
    loop: Loop, recording: Recording, log: PredictionLog, labels: pl.DataFrame, story: Story, places: Places
) -> dict[str, Any]:
    joined = log.frame(loop.name).join(labels, on="key")
    waited = joined["known_at"] - joined["asked_at"]
    since = recording.scored_from
    scored = joined if since is None else joined.filter(pl.col("asked_at") >= since)
    answers = scored.sort("asked_at", "id")
    task = loop.model.task
    metric, beside = metric_of(task), SCORES[task]
    truth, said = _truth(answers), _said(answers)
    static = _static(loop, answers, story, places)
    month = pl.from_epoch("asked_at", time_unit="us").dt.convert_time_zone(recording.time_zone).dt.strftime("%Y-%m")
    by_month = {
        str(name[0]): round(score(task, _said(part), _truth(part)), 4)
        for name, part in answers.with_columns(month=month).group_by("month", maintain_order=True)
    }
    return {
        # In time, as drift and trainer count; every answer that got its label is scored.
        "labels_joined": int(waited.is_between(0, loop.label.within).sum()),
        "scored": len(answers),
        "scored_from": None if since is None else to_rfc3339(since),
        "metric": metric,
        metric: mean_loss(task, said, truth),
        f"static_{metric}": mean_loss(task, static, truth),
        "score": beside,
        beside: score(task, said, truth),
        f"static_{beside}": score(task, static, truth),
        f"{beside}_by_month": by_month,
    }


def _truth(answers: pl.DataFrame) -> np.ndarray:
    return answers["truth"].to_numpy()


def _said(answers: pl.DataFrame) -> Outputs:
    names = [name for name in answers.columns if name.startswith(OUTPUT)]
    return {name.removeprefix(OUTPUT): answers[name].to_numpy() for name in names}


def _static(loop: Loop, answers: pl.DataFrame, story: Story, places: Places) -> Outputs:
    """What the loop's own first champion says to all of them."""
    states = [t.event for t in story.told if isinstance(t.event, ModelState) and t.event.loop == loop.name]
    first = next((state.champion for state in states if state.champion), None)
    if first is None or answers.is_empty():
        return _said(answers)
    return score_static(first, PackageStore(places.packages), answers)


def decisions(story: Story, loop: str) -> dict[str, int]:
    """Its runs, by what became of them: each retrain is promoted, rejected, failed or still open."""
    said = [t.event for t in story.told if isinstance(t.event, RetrainDecided) and t.event.loop == loop]
    accepted = [one for one in said if one.decision is Decision.ACCEPTED]
    runs = [run for one in loop_of(story.told, loop).incidents for run in one.runs]
    fates = Counter(run.fate for run in runs)
    gate, trial = fates[Fate.REJECTED_BY_GATE], fates[Fate.REJECTED_IN_TRIAL]
    steps = [move.step for run in runs for move in run.moves]
    return {
        "retrains": len(accepted),
        "promotions": sum(run.promoted_at is not None for run in runs),
        "rejections": gate + trial,
        "rejections_by_gate": gate,
        "rejections_by_trial": trial,
        "trials": sum(any(move.step in (Step.SHADOW, Step.CANARY) for move in run.moves) for run in runs),
        "rollbacks": steps.count(Step.ROLLED_BACK),
        "failed_runs": fates[Fate.FAILED],
        "open_runs": fates[Fate.TRAINING] + fates[Fate.ON_TRIAL],
    }


def _skew(project: Project, loop: Loop, log: PredictionLog, places: Places) -> dict[str, Any]:
    answers = log.frame(loop.name)
    skew: Skew = measure_skew(
        sample(answers, SKEW_SAMPLE),
        repo=project.features_path,
        registry=places.registry,
        lake=places.lake,
        feature_service=loop.predict.features,
    )
    return {
        "skew_checked": skew.checked,
        "skew_values": skew.values,
        "skew_max": skew.largest,
        "skew_worst": skew.worst,
        "first_prediction_at": None if answers.is_empty() else to_rfc3339(int(answers["asked_at"][0])),
    }


def _recount(project: Project, loop: Loop, log: PredictionLog, ticks: Ticks) -> dict[str, Any]:
    from millstream_cli.recounted import measure_recount
    from millstream_tiles.registry import describe

    answers = sample(log.frame(loop.name), RECOUNT_SAMPLE)
    recounted = measure_recount(answers, ticks, describe(project.features_path).views.values())
    return {
        "recount_checked": recounted.checked,
        "recount_values": recounted.values,
        "recount_max": recounted.largest,
        "recount_worst": recounted.worst,
    }
