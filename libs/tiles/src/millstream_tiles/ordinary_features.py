"""One ordinary view of a FeatureService, read for rows of entities as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from feast import FeatureView, RepoConfig
from feast.feature_view import DUMMY_ENTITY_ID
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType
from numpy.typing import NDArray

from millstream_tiles.keys import key_text
from millstream_tiles.ordinary_rows import NOBODY, OrdinaryRows, RowsQuestion

Features = dict[str, NDArray[Any]]
""" "view__feature" -> one value a row: int64 counts, float64 with NaN for null (a `last_k` is k columns, see
`Aggregate.columns`); features of ordinary views as Feast has them (an object array with None where one is missing, numbers
else)."""


class OrdinaryFeatures:
    """What of `view` the service wants. Resolved once; reading asks the registry no more."""

    def __init__(self, view: FeatureView, projection: Any, config: RepoConfig) -> None:
        self._view = view
        self._config = config
        self._rows = OrdinaryRows()
        self._prefix = projection.name_to_use()
        self._types = {f.name: f.dtype.to_value_type() for f in projection.features}
        kinds = {c.name: c.dtype.to_value_type() for c in view.entity_columns}
        renamed = projection.join_key_map or {}
        self._keys = {k: renamed.get(k, k) for k in view.join_keys if k != DUMMY_ENTITY_ID}
        """Join key -> column of the entities."""
        self._kinds = {k: kinds.get(k, ValueType.UNKNOWN) for k in self._keys}

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the entities that are needed."""
        return tuple(self._keys.values())

    def question(self, entities: Mapping[str, Sequence[Any]]) -> tuple[RowsQuestion, list[int]]:
        """What to ask for, and which of the answers each row means; -1: none, a key of it is null.

        Raises KeyError for a column that is missing.
        """
        columns = [entities[column] for column in self._keys.values()]
        index: dict[tuple[Any, ...], int] = {}
        rows = []
        keys = zip(*columns, strict=True) if columns else [()] * max(map(len, entities.values()), default=0)
        for key in keys:
            absent = any(key_text(part) is None for part in key)
            rows.append(-1 if absent else index.setdefault(key, len(index)))
        if columns:
            names = list(self._keys)
            parts = [
                python_values_to_proto_values(list(c), self._kinds[n])
                for n, c in zip(names, zip(*index, strict=True), strict=bool(index))
            ]
            asked = [EntityKey(join_keys=names, entity_values=values) for values in zip(*parts, strict=True)]
        else:
            asked = [NOBODY] if index else []
        return self._rows.question(self._config, self._view, list(self._types), asked), rows

    def answer(self, question: RowsQuestion, rows: Sequence[int], replies: Sequence[Any]) -> Features:
        """The features of each row, from the replies to the question's commands."""
        found = [row for _, row in self._rows.rows(question, replies)]
        features: Features = {}
        for name, kind in self._types.items():
            values = [None if row is None else feast_value_type_to_python_type(row[name], kind) for row in found]
            features[f"{self._prefix}__{name}"] = array_of([None if r < 0 else values[r] for r in rows])
        return features


def array_of(values: Sequence[Any]) -> NDArray[Any]:
    """Numbers, texts and booleans as NumPy has them; anything else, and whatever has a None, as objects."""
    if all(isinstance(v, int | float) for v in values) or all(isinstance(v, str) for v in values):
        return np.array(values)
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array
