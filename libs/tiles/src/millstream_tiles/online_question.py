"""One `get_online_features`: what is asked of the server, and the answer in Feast's form."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from feast import FeatureView, RepoConfig, utils
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import DoubleList, Value
from numpy.typing import NDArray

from millstream_tiles.as_of_time import asked_time
from millstream_tiles.connection import Command
from millstream_tiles.feast_views import is_windowed
from millstream_tiles.held import Gone
from millstream_tiles.ordinary_rows import OrdinaryRows, Rows, RowsQuestion
from millstream_tiles.read_plan import Request
from millstream_tiles.reader import Found
from millstream_tiles.windows import Values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OnlineQuestion:
    """Windowed and ordinary views, asked together as of one moment."""

    def __init__(
        self,
        config: RepoConfig,
        ordinary: OrdinaryRows,
        grouped_refs: Sequence[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, Any],
        key_map: dict[str, str],
    ) -> None:
        """The arguments are those of Feast's `_read_features_per_fv`."""
        self.moment = asked_time()
        self.windowed: list[Any] = []
        self.requests: list[Request] = []
        self.commands: list[Command] = []
        self._ordinary = ordinary
        self._asked: list[tuple[FeatureView, list[str], Any, int, RowsQuestion | None]] = []
        for table, features in grouped_refs:
            entities, indexes, length = _unique_entities(table, join_key_values, key_map)
            question = None
            if is_windowed(table):
                self.windowed.append(table)
                self.requests.append((table.name, columns_of(entities)))
            else:
                question = ordinary.question(config, table, features, utils._get_entity_key_protos(entities))
                self.commands += question.commands
            self._asked.append((table, features, indexes, length, question))

    def answer(self, found: Found, response: Any, full_names: bool, with_versions: bool) -> None:
        """Add to Feast's `response` what was read, view by view in the order of the question."""
        windows, first = zip(found.values, found.gone, strict=True), 0
        for table, features, indexes, length, question in self._asked:
            gone: Gone = {}
            if question is None:
                values, gone = next(windows)
                rows = windows_as_rows(values, features, len(indexes), self.moment)
            else:
                end = first + len(question.commands)
                rows, first = self._ordinary.rows(question, found.replies[first:end]), end
            utils._populate_response_from_feature_data(
                features, rows, indexes, response, full_names, table, length, with_versions
            )
            if gone:
                _say_gone(gone, features, indexes, response.results[-len(features) :])


def _unique_entities(table: FeatureView, join_key_values: dict[str, Any], key_map: dict[str, str]) -> Any:
    """Feast's function of this name, and rows with a null key, at which that one stops: windows of nothing, no ordinary row."""
    try:
        return utils._get_unique_entities(table, join_key_values, key_map)
    except TypeError:
        columns = utils._get_table_entity_values(table, key_map, join_key_values)
        if all(value.ByteSize() for column in columns.values() for value in column):
            raise
    rows = list(zip(*columns.values(), strict=False))
    # A null is the one value without a byte.
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for place, row in enumerate(rows):
        if is_windowed(table) or all(value.ByteSize() for value in row):
            groups.setdefault(tuple(value.SerializeToString() for value in row), []).append(place)
    entities = tuple(dict(zip(columns, rows[places[0]], strict=True)) for places in groups.values())
    return entities, tuple(groups.values()), len(rows)


def _say_gone(gone: Gone, features: Sequence[str], indexes: Sequence[Sequence[int]], vectors: Sequence[Any]) -> None:
    """Feast calls everything PRESENT that has a row."""
    for feature, vector in zip(features, vectors, strict=True):
        for entity in np.flatnonzero(gone.get(feature, ())).tolist():
            for row in indexes[entity]:
                vector.statuses[row] = FieldStatus.OUTSIDE_MAX_AGE


def columns_of(entities: Sequence[dict[str, Value]]) -> dict[str, list[Any]]:
    """Feast's entity rows as columns of plain values."""
    names = entities[0].keys() if entities else ()
    return {name: [_plain(row[name]) for row in entities] for name in names}


def windows_as_rows(values: Values, features: Sequence[str] | None, length: int, moment: int) -> Rows:
    """Windows as Feast's rows: counts int64, `last_k` lists, others double, NaN null; the row's time is the one asked for."""
    when = _EPOCH + timedelta(microseconds=moment)
    columns = {}
    for name in features if features is not None else values:
        column = values[name]
        if column.ndim == 2:
            columns[name] = [_latest(row) for row in column]
        elif column.dtype == np.int64:
            columns[name] = [Value(int64_val=v) for v in column.tolist()]
        else:
            columns[name] = [Value() if v != v else Value(double_val=v) for v in column.tolist()]
    return [(when, {name: column[i] for name, column in columns.items()}) for i in range(length)]


def _latest(values: NDArray[np.float64]) -> Value:
    """A `last_k`: what there is of its k values; null where there is none."""
    there = values[~np.isnan(values)].tolist()
    return Value(double_list_val=DoubleList(val=there)) if there else Value()


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)
