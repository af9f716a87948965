"""What a replay did, counted from the topics, the lake and the stores; never from the sender's own counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
from millstream_cli.offsets import Offsets
from millstream_cli.predictions import OUTPUT, PredictionLog, read_predictions
from millstream_cli.recording import Recording
from millstream_cli.scores import SCORES, Outputs, mean_loss, score
from millstream_cli.skew import LAKE_GROUP
from millstream_cli.static_model import score_static
from millstream_cli.story import Story
from millstream_cli.ticks import Ticks

SKEW_SAMPLE = 4_000
SAME = 1e-9
"""Features further apart than the last digits of a sum are two numbers."""
RECOUNT_SAMPLE = 200
"""A recount is slow on purpose: these take two seconds."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the summary reads."""

    kafka: Bootstrap
    lake: str
    packages: str
    registry: Path


async def summarise(
    project: Project, loop: Loop, recording: Recording, ticks: Ticks, story: Story, places: Places
) -> dict[str, Any]:
    """The figures of `out/demo.json` that come from topics, lake and stores. Raises Stuck: the lake does not get on."""
    offsets = Offsets(places.kafka)
    await offsets.start()
    try:
        ends = await offsets.ends(list(project.streams))
        in_topics = sum(ends.values())
        # No tick waits for the lake: what it has not written yet is not lost.
        heard = await offsets.heard(LAKE_GROUP)
        await offsets.reached(LAKE_GROUP, {p: end for p, end in ends.items() if p.topic in heard})
        dead = await _dead_letters(offsets, project)
    finally:
        await offsets.stop()
    log = await read_predictions(places.kafka)
    lake = _lake(project, loop, ticks, places.lake)
    labels = _labels(loop, places.lake)
    figures: dict[str, Any] = {
        "questions_sent": len(ticks.sent(loop.predict.on)),
        "events_sent": ticks.events,
        "events_in_topics": in_topics,
        "events_in_lake": lake["rows"],
        "events_lost": lake["lost"],
        "duplicates": lake["duplicates"] + log.repeats,
        "dead_letters": dead,
        "questions": lake["questions"],
        "unanswered_no_model": log.unanswered,
        "predictions": log.records,
        "predictions_effective": log.served,
    }
    figures |= _quality(loop, recording, log, labels, story, places)
    figures |= _decisions(story)
    figures |= _skew(project, loop, log, places)
    figures |= _recount(project, loop, log, ticks)
    figures["timeline"] = story.timeline()
    return figures


def broken_promises(figures: Mapping[str, Any]) -> list[str]:
    """What must hold after every replay, whatever was sent, and does not: nothing where all is well."""
    answered = figures["predictions_effective"] + figures["unanswered_no_model"]
    found = {
        f"{figures['events_lost']:,} events are lost": figures["events_lost"] == 0,
        f"{figures['questions']:,} questions, {answered:,} of them answered": answered == figures["questions"],
        f"online and offline differ: {figures['skew_worst']}": figures["skew_max"] <= SAME,
        f"online and a recount differ: {figures['recount_worst']}": figures["recount_max"] <= SAME,
    }
    return [what for what, holds in found.items() if not holds]


async def _dead_letters(offsets: Offsets, project: Project) -> int:
    names = await offsets.topics()
    wanted = [name for name in names if name.endswith("-dlq")]
    return sum((await offsets.ends(wanted)).values()) if wanted else 0


def _lake(project: Project, loop: Loop, ticks: Ticks, lake: str) -> dict[str, int]:
    """Rows, different questions, ids that were sent and are not there, ids that are there twice."""
    from millstream_tiles.lake import Lake
    from millstream_tiles.lake_reader import count, read_events

    rows = lost = duplicates = questions = 0
    tables = Lake(lake)
    for name, stream in project.streams.items():
        sent = ticks.sent(name)
        if stream.id is None:  # nothing tells one event from another: they can only be counted
            there = count(tables, name)
            rows, lost = rows + there, lost + max(0, len(sent) - there)
            questions += there if name == loop.predict.on else 0
            continue
        ids = read_events(tables, name, ["_id"])["_id"]
        rows += len(ids)
        unique = ids.unique()
        duplicates += len(ids) - len(unique)
        questions += len(unique) if name == loop.predict.on else 0
        lost += len(sent) - int(sent[stream.id].is_in(unique.implode()).sum())
    return {"rows": rows, "questions": questions, "lost": lost, "duplicates": duplicates}


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


def _quality(
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
    static = _static(answers, story, places)
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


def _static(answers: pl.DataFrame, story: Story, places: Places) -> Outputs:
    first = next((t.event.champion for t in story.told if isinstance(t.event, ModelState) and t.event.champion), None)
    if first is None or answers.is_empty():
        return _said(answers)
    return score_static(first, PackageStore(places.packages), answers)


def _decisions(story: Story) -> dict[str, int]:
    accepted = [t for t in story.told if isinstance(t.event, RetrainDecided) and t.event.decision is Decision.ACCEPTED]
    loops = {told.loop for told in story.told}
    runs = [run for name in loops for one in loop_of(story.told, name).incidents for run in one.runs]
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
