"""Training/serving skew, measured: logged features recomputed offline as of each question, and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import numpy as np

from millstream.contracts.events import PredictionServed


@dataclass(frozen=True, kw_only=True)
class Skew:
    """The comparison of a sample."""

    checked: int
    values: int
    largest: float
    """Largest absolute difference; infinite where one side is null and the other is not."""
    worst: str
    """Where the largest difference is, for a person."""


def sample(served: Sequence[PredictionServed], size: int, seed: int = 7) -> list[PredictionServed]:
    """An even sample in the order of asking: the same on every run."""
    ordered = sorted(served, key=lambda p: (p.asked_at, p.id))
    if len(ordered) <= size:
        return ordered
    chosen = np.random.default_rng(seed).choice(len(ordered), size=size, replace=False)
    return [ordered[i] for i in np.sort(chosen)]


def measure_skew(
    served: Sequence[PredictionServed], *, repo: Path, registry: Path, lake: str, feature_service: str
) -> Skew:
    """Recompute `served` by `get_historical_features` and compare with what was logged. Imports Feast: seconds."""
    import pandas as pd

    from millstream_tiles.registry import open_store

    if not served:
        return Skew(checked=0, values=0, largest=0.0, worst="no prediction to check")
    store = open_store(repo, registry=registry, online={}, offline={"lake": lake})
    names = list(served[0].entities)
    asked = pd.DataFrame({name: [p.entities.get(name) for p in served] for name in names})
    asked["event_timestamp"] = pd.to_datetime([p.asked_at.astimezone(UTC) for p in served], utc=True)
    asked["_row"] = range(len(served))
    found = store.get_historical_features(
        entity_df=asked, features=store.get_feature_service(feature_service), full_feature_names=True
    ).to_df()
    found = found.set_index("_row").sort_index()
    largest, worst, values = 0.0, "none", 0
    for name in served[0].features:
        offline = found[name].to_numpy(dtype=float, na_value=math.nan)
        for row, prediction in enumerate(served):
            logged = prediction.features[name]
            values += 1
            difference = _difference(logged, float(offline[row]))
            if difference > largest:
                largest = difference
                worst = f"{name} of {prediction.question}: online {logged}, offline {offline[row]}"
    return Skew(checked=len(served), values=values, largest=largest, worst=worst)


def _difference(online: float | int | None, offline: float) -> float:
    missing = math.isnan(offline)
    if online is None or missing:
        return 0.0 if (online is None) == missing else math.inf
    return abs(float(online) - offline)
