"""Training/serving skew, measured: logged features recomputed offline as of each question, and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENTITIES, FEATURES = "entities.", "features."
"""How the prediction log names its columns."""


@dataclass(frozen=True, kw_only=True)
class Skew:
    """The comparison of a sample."""

    checked: int
    values: int
    largest: float
    """Largest absolute difference; infinite where one side is null and the other is not."""
    worst: str
    """Where the largest difference is, for a person."""


def sample(answers: pl.DataFrame, size: int, seed: int = 7) -> pl.DataFrame:
    """An even sample, in the order of `answers`: the same on every run."""
    if len(answers) <= size:
        return answers
    chosen = np.random.default_rng(seed).choice(len(answers), size=size, replace=False)
    return answers[np.sort(chosen)]


def measure_skew(answers: pl.DataFrame, *, repo: Path, registry: Path, lake: str, feature_service: str) -> Skew:
    """Recompute `answers` (rows of `PredictionLog.frame`) by `get_historical_features` and compare with what was logged.

    Imports Feast: seconds.
    """
    import pandas as pd

    from millstream_tiles.registry import open_store

    if answers.is_empty():
        return Skew(checked=0, values=0, largest=0.0, worst="no prediction to check")
    store = open_store(repo, registry=registry, online={}, offline={"lake": lake})
    names = [name for name in answers.columns if name.startswith(ENTITIES)]
    asked = pd.DataFrame({name.removeprefix(ENTITIES): answers[name].to_list() for name in names})
    asked["event_timestamp"] = pd.to_datetime(answers["asked_at"].to_numpy(), unit="us", utc=True)
    asked["_row"] = range(len(answers))
    found = store.get_historical_features(
        entity_df=asked, features=store.get_feature_service(feature_service), full_feature_names=True
    ).to_df()
    found = found.set_index("_row").sort_index()
    names = [name.removeprefix(FEATURES) for name in answers.columns if name.startswith(FEATURES)]
    offline = {FEATURES + name: found[name].to_numpy(dtype=float, na_value=np.nan) for name in names}
    return compared(answers, pl.DataFrame(offline), "offline")


def compared(answers: pl.DataFrame, again: pl.DataFrame, said_by: str) -> Skew:
    """The features of `answers` beside the same ones computed `again`, row by row."""
    largest, worst = 0.0, "none"
    for name in again.columns:
        logged, other = (frame[name].fill_null(float("nan")).to_numpy() for frame in (answers, again))
        apart = differences(logged, other)
        row = int(np.argmax(apart))
        if apart[row] > largest:
            largest = float(apart[row])
            worst = f"{name} of {answers['question'][row]}: online {logged[row]}, {said_by} {other[row]}"
    return Skew(checked=len(answers), values=len(answers) * len(again.columns), largest=largest, worst=worst)


def differences(online: Floats, other: Floats) -> Floats:
    """Absolute differences; NaN is null: two nulls do not differ, a null and a number differ infinitely."""
    nulls = np.isnan(online).astype(int) + np.isnan(other)
    apart: Floats = np.select([nulls == 2, nulls == 1], [0.0, np.inf], np.abs(online - other))
    return apart
