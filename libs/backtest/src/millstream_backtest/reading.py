"""Reads the past out of a lake, once: what serving would have read for every question is what history gives for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from millstream.contracts.events import Cause
from millstream.contracts.tasks import Task, Truth, class_name
from millstream.contracts.topics import LABELS
from millstream.errors import RejectEvent
from millstream.project import Loop, Project, duration
from millstream.project.train import Train
from millstream_backtest.errors import BacktestFailed
from millstream_backtest.past import NEVER, Past
from millstream_drift.domain.events import Label, by_prediction
from millstream_tiles.feast_views import views_of
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import count, read_events
from millstream_trainer.adapters.feast_history import FeastHistory
from millstream_trainer.adapters.lake_labels import joined, labels, told_label
from millstream_trainer.adapters.lake_questions import as_text, questions
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed


def read_past(project: Project, loop: Loop, lake: str, folder: Path) -> Past:
    """Everything that `lake` holds of `loop`, features and all; `folder` is for what Feast compiles meanwhile.

    Raises BacktestFailed, TilesError.
    """
    place = Workplace(
        project=str(project.path),
        lake=lake,
        packages="",
        mlflow=None,
        data=str(folder),
        threads=1,
        lake_patience=0.0,
        mlflow_patience=0.0,
    )
    whole = loop.model_copy(update={"train": Train()})  # no bound on the history: each policy sets its own
    history = _Everything(project=replace(project, loops={loop.name: whole}), place=place)
    spec = RunSpec(
        loop=loop.name,
        run="backtest",
        attempt=1,
        version="0",
        at=datetime(9999, 1, 1, tzinfo=UTC),
        cause=Cause.FIRST_MODEL,
        request="backtest",
        positions={},
        champion=None,
    )
    try:
        dataset = history.read(spec)
    except RunFailed as error:
        raise BacktestFailed(str(error)) from error
    rows = history.rows
    assert dataset.table.questions.tolist() == rows["_question"].to_list(), "both are by known-at and id"
    known = rows["_label_known_at"].dt.epoch("us").fill_null(NEVER).to_numpy().astype(np.int64)
    return Past(
        loop=loop.name,
        dataset=dataset,
        keys=rows["_key"].to_list(),
        entities=rows["_entity"].to_list(),
        inputs={name: rows[name].to_list() for name in loop.predict.inputs},
        features=history.features,
        label_known_at=known,
        labels=_labels(Lake(lake), project, loop),
    )


class _Everything(FeastHistory):
    """Reads questions without a label too, and keeps what a prediction says of each."""

    rows: pl.DataFrame
    features: dict[str, NDArray[np.float64]]

    def _rows(self, loop: Loop, spec: RunSpec, fields: list[str]) -> tuple[pl.DataFrame, dict[str, int]]:
        key = self._project.streams[loop.predict.on].key
        by = [name for name in (loop.rollout.by, key) if name is not None]
        asked = questions(self._lake, loop, spec, [*fields, *by])
        known = labels(self._lake, loop, spec)
        if asked.is_empty() or not known:
            raise RunFailed(
                f"the lake has {len(asked)} questions of {loop.predict.on} and {len(known)} labels, of {loop.label.stream} or "
                "by prediction id; there is nothing to judge a policy by"
            )
        labelled, _ = joined(asked, known, loop)
        found = labelled.select("_question", "_label", "_label_known_at")
        if found.is_empty():
            raise RunFailed(
                f"none of {len(known)} labels belongs to one of {len(asked)} questions within label.within, "
                f"{duration.to_text(loop.label.within)}: write a longer one, or see whether label.by names the same in both"
            )
        rows = asked.join(found, on="_question", how="left", validate="1:1").sort("_known_at", "_question")
        entity = pl.coalesce(*(as_text(rows[name]).alias(name) for name in by), "_question")
        rows = rows.with_columns(_entity=entity, _label=pl.col("_label").fill_null(found["_label"][0]))
        self.rows = rows
        return rows, {}

    def _features(
        self, store: Any, service: Any, rows: pl.DataFrame, keys: list[str], names: list[str]
    ) -> dict[str, np.ndarray[Any, Any]]:
        self._heard(store, service)
        found = super()._features(store, service, rows, keys, names)
        self.features = found
        return found

    def _heard(self, store: Any, service: Any) -> None:
        """Raises RunFailed for a view whose stream has no event: all its windows would be empty, and every policy be judged by
        models that know less than the live one."""
        views = views_of(store)
        for projection in service.feature_view_projections:
            view = views.get(projection.name)  # Feast's own views are not of the lake
            if view is not None and not count(self._lake, view.stream):
                raise RunFailed(
                    f"the lake {self._lake.uri} has no event of {view.stream}, and view {view.name} of {service.name} is made "
                    f"of them: name a lake that has them (--lake), replay them into the mill (millstream replay), or take the "
                    f"view out of {service.name}"
                )


def _labels(lake: Lake, project: Project, loop: Loop) -> list[Label]:
    """As drift reads them: an event without a label moves the clock; one whose label cannot be computed is a dead letter."""
    label, task = loop.label, Task(loop.model.task)
    names = list(label.value.fields)
    columns = ["_known_at", "_id", "_partition", "_offset", label.by, *names]
    frame = read_events(lake, label.stream, list(dict.fromkeys(columns)))
    times = frame["_known_at"].dt.epoch("us").to_list()
    ids = frame.select(
        pl.coalesce("_id", pl.format("{}/{}/{}", pl.lit(label.stream), "_partition", "_offset"))
    ).to_series()
    keys = as_text(frame[label.by]).to_list()
    values: dict[tuple[Any, ...], Truth | None] = {}
    broken: set[tuple[Any, ...]] = set()
    heard = []
    for time, id, key, row in zip(times, ids.to_list(), keys, frame.select(names).rows(), strict=True):
        if row not in values and row not in broken:
            try:
                values[row] = _truth(task, label.value(dict(zip(names, row, strict=True))))
            except (RejectEvent, ValueError, OverflowError):
                broken.add(row)
        if row not in broken and key is not None:
            heard.append(Label(time, id, key, values[row]))
    return sorted([*heard, *_told(lake, loop)], key=lambda one: one.time)


def _told(lake: Lake, loop: Loop) -> list[Label]:
    """Labels by prediction id."""
    if lake.table(LABELS.name) is None:
        return []
    frame = read_events(lake, LABELS.name, ["_known_at", "_id", "prediction_id", "value", "loop"])
    frame = frame.filter(pl.col("loop") == loop.name).with_columns(pl.col("_known_at").dt.epoch("us"))
    heard, task = [], Task(loop.model.task)
    for time, id, prediction, text, _ in frame.iter_rows():
        with suppress(ValueError, OverflowError):  # a dead letter of drift's
            heard.append(Label(time, id, by_prediction(prediction), _truth(task, told_label(task, text))))
    return heard


def _truth(task: Task, value: Truth | None) -> Truth | None:
    if value is None:
        return None
    if task is Task.BINARY:
        return bool(value)
    return float(value) if task is Task.REGRESSION else class_name(value)
