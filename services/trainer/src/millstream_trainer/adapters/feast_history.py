"""The dataset of a run: questions and labels of the lake, features by Feast as they were known when each was asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import numpy as np
import polars as pl

from millstream.contracts.content import Content, cut, rank
from millstream.contracts.package import Origin
from millstream.project import Loop, Project
from millstream_tiles.digest import digest
from millstream_tiles.errors import TilesError
from millstream_tiles.feast_views import columns_in, views_of
from millstream_tiles.lake import Lake
from millstream_tiles.past_rows import past_features
from millstream_tiles.registry import open_store
from millstream_trainer.adapters.lake_labels import joined, labels
from millstream_trainer.adapters.lake_questions import questions, wait_for, without_broken
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.table import Column, Table, category_column, number_column
from millstream_trainer.errors import RunFailed

MOST_CONTENT = 20_000
"""Questions whose texts and vectors are held until the history is chosen: a fortieth of them are enough for its reference."""


class FeastHistory:
    """See `ports.History`."""

    def __init__(self, *, project: Project, place: Workplace) -> None:
        """Raises RunFailed for a lake that nobody could read."""
        self._project = project
        self._place = place
        try:
            self._lake = Lake(place.lake)
        except TilesError as error:
            raise RunFailed(f"MILLSTREAM_LAKE: {error}") from error

    def read(self, spec: RunSpec) -> Dataset:
        loop = self._project.loops[spec.loop]
        wait_for(self._lake, spec, self._place.lake_patience)
        with self._store() as store:
            try:
                service = store.get_feature_service(loop.predict.features)
                views = views_of(store)
            except Exception as error:  # Feast has no common base for its errors
                raise RunFailed(f"feature service {loop.predict.features}: {error}") from error
            used = {p.name_to_use(): p.name for p in service.feature_view_projections}
            names = [column for p in service.feature_view_projections for column in columns_in(p, views)]
            keys = sorted({key for name in used.values() for key in _keys(store, views, name)})
            rows, left_out = self._rows(loop, spec, [*loop.predict.inputs, *keys, *loop.drift.content])
            features = self._features(store, service, rows, keys, names)
            origins = _origins(service, views)
            hashes = {name: digest(views[name]) for name in used.values() if name in views}
        columns = [
            *(number_column(name, "feature", features[name].astype(np.float64)) for name in names),
            *(_input(name, rows[name]) for name in loop.predict.inputs),
        ]
        origins = {**origins, **{name: Origin(stream=loop.predict.on, field=name) for name in loop.predict.inputs}}
        return Dataset(
            table=_table(rows, columns),
            views=hashes,
            left_out=left_out,
            origins=origins,
            lake=_named(self._place.lake),
            content={name: _content(rows, name, loop) for name in loop.drift.content},
        )

    def _rows(self, loop: Loop, spec: RunSpec, fields: list[str]) -> tuple[pl.DataFrame, dict[str, int]]:
        asked = questions(self._lake, loop, spec, fields)
        known = labels(self._lake, loop, spec)
        rows, left_out = joined(asked, known, loop)
        rows, broken = without_broken(rows, spec)
        if rows.is_empty():
            raise RunFailed(
                f"no question of {loop.predict.on} has its label from {loop.label.stream} or by prediction id by "
                f"{spec.at:%Y-%m-%d %H:%M}: {len(asked)} questions, {len(known.by_key)} and {len(known.by_prediction)} labels"
            )
        return rows, {**left_out, **broken}

    def _features(
        self, store: Any, service: Any, rows: pl.DataFrame, keys: list[str], names: list[str]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Each feature for each row, in the rows' order."""
        try:
            return past_features(store, service, names, dict(rows.select(keys).to_pandas().items()), _known_at(rows))
        except TilesError as error:
            raise RunFailed(f"features cannot be computed: {error}") from error

    @contextmanager
    def _store(self) -> Iterator[Any]:
        """A store with a registry of this run's own: two processes writing one registry file lose definitions."""
        folder = Path(self._place.data)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as home:
            try:
                yield open_store(
                    self._project.features_path,
                    registry=Path(home) / "registry.db",
                    offline={"lake": self._place.lake},
                )
            except TilesError as error:
                raise RunFailed(str(error)) from error


def _named(lake: str) -> str:
    """The lake's address as a reader may see it: without a name and password, or what follows a question mark."""
    parts = urlsplit(lake)
    if len(parts.scheme) < 2:  # a folder
        return str(Path(lake).resolve())
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _origins(service: Any, views: dict[str, Any]) -> dict[str, Origin]:
    """The field that each column of a windowed view aggregates; a bare count is of no field."""
    found = {}
    for projection in service.feature_view_projections:
        view = views.get(projection.name)
        if view is None:
            continue  # Feast's own, of whatever source
        for aggregate in view.aggregates:
            if aggregate.column:
                origin = Origin(stream=view.stream, field=aggregate.column)
                found.update({f"{projection.name_to_use()}__{column}": origin for column in aggregate.columns})
    return found


def _keys(store: Any, views: dict[str, Any], name: str) -> list[str]:
    if name in views:
        return list(views[name].keys)
    return [column.name for column in store.get_feature_view(name).entity_columns]


def _input(name: str, values: pl.Series) -> Column:
    if values.dtype == pl.String:
        return category_column(name, "input", values.to_list())
    return number_column(name, "input", values.cast(pl.Float64).fill_null(float("nan")).to_numpy())


def _content(rows: pl.DataFrame, name: str, loop: Loop) -> dict[str, Content | None]:
    """Question → its text or vector, for those that a reference may be drawn from. The lake keeps arrays as JSON."""
    drawn = rows.select("_question", name)
    if len(drawn) > MOST_CONTENT:
        ranks = pl.Series([rank(id) for id in drawn["_question"]])
        drawn = drawn[ranks.arg_sort()[:MOST_CONTENT]]
    decode = msgspec.json.decode if name in loop.drift.embedding else str
    return {id: None if value is None else cut(decode(value)) for id, value in drawn.iter_rows()}


def _table(rows: pl.DataFrame, columns: list[Column]) -> Table:
    ids = np.empty(len(rows), dtype=object)
    ids[:] = rows["_question"].to_list()
    return Table(
        questions=ids,
        known_at=_known_at(rows),
        labels=_labels(rows["_label"]),
        columns=tuple(columns),
    ).sorted()


def _known_at(rows: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Microseconds."""
    return rows["_known_at"].dt.epoch("us").to_numpy().astype(np.int64)


def _labels(values: pl.Series) -> np.ndarray[Any, Any]:
    if values.dtype != pl.String:
        return values.to_numpy().astype(np.int8 if values.dtype == pl.Int8 else np.float64)
    names = np.empty(len(values), dtype=object)
    names[:] = values.to_list()
    return names
