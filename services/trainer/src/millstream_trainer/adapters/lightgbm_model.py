"""Fits LightGBM so that the same table gives the same model, and asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from millstream_trainer.domain.table import Table

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A booster and what it takes to ask it."""

    booster: lightgbm.Booster
    categories: Mapping[str, tuple[str, ...]]
    """Per category column its known values, sorted; the index is the code. Anything else is missing."""
    columns: tuple[str, ...]

    def probabilities(self, table: Table) -> NDArray[np.float64]:
        return np.asarray(self.booster.predict(matrix(table, self.categories)), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Share of the total gain by column."""
        gain = self.booster.feature_importance(importance_type="gain")
        total = float(gain.sum()) or 1.0
        return {name: float(value) / total for name, value in zip(self.columns, gain, strict=True)}


def fit(table: Table, *, params: Mapping[str, Any], rounds: int, seed: int, threads: int) -> Fitted:
    """Fit on all rows of `table`. `params` are LightGBM's own names; what makes a fit repeatable is set here."""
    categories = {
        column.name: tuple(sorted(set(column.values) - {""})) for column in table.columns if not column.is_number
    }
    indexes = [i for i, column in enumerate(table.columns) if not column.is_number]
    settings = {
        **params,
        "objective": "binary",
        "verbosity": -1,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,  # else LightGBM times both ways and takes the faster: another sum order, another model
        "num_threads": threads,
    }
    data = lightgbm.Dataset(
        matrix(table, categories), table.labels, categorical_feature=indexes, params=settings, free_raw_data=True
    )
    booster = lightgbm.train(settings, data, num_boost_round=rounds)
    return Fitted(
        booster=_with_float32_thresholds(booster),
        categories=categories,
        columns=tuple(column.name for column in table.columns),
    )


def matrix(table: Table, categories: Mapping[str, tuple[str, ...]]) -> Floats:
    """Rows × columns in float32; NaN is missing, and so is a category that was not in training."""
    found = np.empty((len(table), len(table.columns)), dtype=np.float32)
    for i, column in enumerate(table.columns):
        if column.is_number:
            found[:, i] = column.values
        else:
            codes = {name: float(code) for code, name in enumerate(categories[column.name])}
            found[:, i] = [codes.get(value, np.nan) for value in column.values]
    return found


def _with_float32_thresholds(booster: lightgbm.Booster) -> lightgbm.Booster:
    """The same model with every threshold rounded down to a float32.

    LightGBM splits at doubles between two values; ONNX holds float32. Rounding to nearest may cross the upper value and
    send its rows to the other side; rounding down changes no decision on float32 inputs. (A categorical split's threshold
    is a small index and stays as it is.)
    """
    lines = []
    for line in booster.model_to_string(num_iteration=-1).splitlines():
        if line.startswith("threshold="):
            doubles = np.array(line.removeprefix("threshold=").split(), dtype=np.float64)
            line = "threshold=" + " ".join(repr(float(value)) for value in _down(doubles))
        if not line.startswith("tree_sizes="):  # byte positions that no longer hold; LightGBM reads on without them
            lines.append(line)
    return lightgbm.Booster(model_str="\n".join(lines) + "\n")


def _down(values: NDArray[np.float64]) -> Floats:
    near = values.astype(np.float32)
    lower: Floats = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
    return lower
