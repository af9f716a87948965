"""Features of the past for a program: in the order it asked in, as numbers, every row once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from millstream_tiles.errors import TilesError
from millstream_tiles.past_rows import past_features

NAMES = ("trips__count", "trips__last__1", "trips__last__2", "profile__stars", "profile__name", "profile__active")


class Archive:
    """A store that answers in an order of its own, as Feast's stores for databases do."""

    def __init__(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        self._change = change
        self.asked = pd.DataFrame()

    def get_historical_features(self, entity_df: pd.DataFrame, features: Any, full_feature_names: bool) -> Archive:
        assert full_feature_names
        self.asked = entity_df
        return self

    def to_df(self) -> pd.DataFrame:
        number = self.asked["driver"].to_numpy()
        found = self.asked.assign(
            trips__count=number * 10,
            trips__last=[None if n == 2 else [float(n)] if n == 1 else [float(n), None] for n in number],
            profile__stars=pd.array([None if n == 1 else n for n in number], dtype="Int64"),
            profile__name=[f"driver {n}" for n in number],
            profile__active=[n == 3 for n in number],
        )
        return self._change(found)


def ask(change: Callable[[pd.DataFrame], pd.DataFrame]) -> dict[str, np.ndarray[Any, Any]]:
    store: Any = Archive(change)
    found = past_features(store, None, NAMES, {"driver": [3, 1, 2]}, np.array([3_000_000, 1_000_000, 2_000_000]))
    assert [one.timestamp() for one in store.asked["event_timestamp"]] == [3.0, 1.0, 2.0]
    return found


@pytest.mark.parametrize(
    "change",
    [lambda found: found, lambda found: found.sort_values("driver"), lambda found: found[::-1]],
    ids=["as asked", "by key", "backwards"],
)
def test_whatever_order_a_store_has_answers_are_in_that_of_the_questions(change: Callable[..., pd.DataFrame]) -> None:
    found = ask(change)
    assert found["trips__count"].tolist() == [30, 10, 20]
    np.testing.assert_array_equal(found["trips__last__1"], [3.0, 1.0, np.nan])
    np.testing.assert_array_equal(found["trips__last__2"], [np.nan] * 3)
    np.testing.assert_array_equal(found["profile__stars"], [3.0, np.nan, 2.0])
    np.testing.assert_array_equal(found["profile__name"], [np.nan] * 3, "text is null, as it is online")
    assert found["profile__active"].tolist() == [1.0, 0.0, 0.0]
    assert all(values.dtype.kind in "fi" for values in found.values())


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda found: found[:-1], 2),
        (lambda found: pd.concat([found, found[:1]]), 4),
        (lambda found: pd.concat([found[:2], found[:1]]), 3),
    ],
    ids=["one is lost", "one is there twice", "one in the place of another"],
)
def test_a_row_that_does_not_come_back_once_is_told(change: Callable[..., pd.DataFrame], rows: int) -> None:
    with pytest.raises(TilesError, match=f"Feast returned {rows} rows for 3 questions; each must come back once"):
        ask(change)
