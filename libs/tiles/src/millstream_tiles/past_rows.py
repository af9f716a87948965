"""Features of the past for rows of questions, as arrays in their order: what a run learns, what a table is scored with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from feast import FeatureService, FeatureStore
from numpy.typing import NDArray

from millstream_tiles.errors import TilesError
from millstream_tiles.retrieval_job import EVENT_TIMESTAMP

_ROW = "_row"
"""Travels through Feast with each row, since a store may return rows in any order."""
_NUMBERS = (int, float, np.integer)
"""Objects that are numbers: neither pandas' NA nor None is one."""


def past_features(
    store: FeatureStore,
    service: FeatureService,
    names: Sequence[str],
    entities: Mapping[str, Sequence[Any]],
    as_of: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """The columns `names` of `service`, as known at `as_of` (microseconds, one a row), for each row of `entities`.

    Text counts as null, as it does online. Raises TilesError where they cannot be computed, or a row does not come back once.
    """
    times = pd.to_datetime(as_of, unit="us", utc=True)
    asked = pd.DataFrame({**entities, EVENT_TIMESTAMP: times, _ROW: np.arange(len(as_of))})
    found = store.get_historical_features(entity_df=asked, features=service, full_feature_names=True).to_df()
    order = np.argsort(found[_ROW].to_numpy(), kind="stable")
    if len(found) != len(asked) or not np.array_equal(found[_ROW].to_numpy()[order], asked[_ROW].to_numpy()):
        raise TilesError(f"Feast returned {len(found)} rows for {len(asked)} questions; each must come back once")
    return {name: _numbers(found, name)[order] for name in names}


def _numbers(found: pd.DataFrame, name: str) -> NDArray[Any]:
    """One column of features; "view__feature__2" is the second value of a list."""
    if name in found:
        column = found[name]
    else:
        feature, _, place = name.rpartition("__")
        column = found[feature].str.get(int(place) - 1)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fi":
        values: NDArray[Any] = column.to_numpy()
        return values
    return np.array([float(v) if isinstance(v, _NUMBERS) else np.nan for v in column.tolist()], dtype=np.float64)
