"""The point-in-time join: seconds and memory by size, beside Polars' rolling windows on the same questions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.history import AT_ONCE
from millstream_tiles.join import windowed_values

MINUTE, HOUR = 60_000_000, 3_600_000_000
DAYS = 60
KEYS = {"airport": 16, "route": 100, "aircraft": 4_000}
WINDOWS = ((HOUR, 10 * MINUTE), (24 * HOUR, HOUR))
FUNCTIONS = (Function.MEAN, Function.COUNT)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """One size."""

    events: int
    questions: int
    features: int
    seconds: float
    peak_mb: int


def views() -> list[View]:
    """Three views, each with a mean and a count over an hour and a day: twelve features."""
    return [
        View(
            name=f"by_{key}",
            stream="departures",
            keys=(key,),
            time_field="at",
            lateness=HOUR,
            event_id=None,
            aggregates=tuple(
                Aggregate(name=f"{f}_{w}", function=f, column="delay", window=w, slide=s)
                for w, s in WINDOWS
                for f in FUNCTIONS
            ),
        )
        for key in KEYS
    ]


def history(events: int, questions: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events of two months, known when they happened or some minutes later, and questions between them."""
    rng = np.random.default_rng(3)
    when = np.sort(rng.integers(0, DAYS * 24 * HOUR, events))
    late = np.where(rng.random(events) < 0.1, rng.integers(0, 30 * MINUTE, events), 0)
    columns: dict[str, Any] = {"_event_time": when, "_known_at": when + late, "delay": rng.normal(10, 30, events)}
    asked: dict[str, Any] = {"t": np.sort(rng.integers(0, DAYS * 24 * HOUR, questions))}
    for key, count in KEYS.items():
        columns[key] = rng.integers(0, count, events)
        asked[key] = rng.integers(0, count, questions)
    return pl.DataFrame(columns), pl.DataFrame(asked)


def ours(events: pl.DataFrame, asked: pl.DataFrame) -> None:
    """Two views at a time, as `get_historical_features` joins them."""
    t = asked["t"].to_numpy()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda view: windowed_values(view, events, asked.select(view.keys), t), views()))


def polars_rolling(events: pl.DataFrame, asked: pl.DataFrame) -> None:
    """The usual recipe: questions and events in one frame, rolling by key, then the questions' rows.

    It slides by the microsecond instead of by tiles and knows no known-at, so its answers are others; its work is like ours.
    """
    for key in KEYS:
        both = pl.concat(
            [
                events.select(key, at=pl.col("_event_time"), delay="delay", asked=pl.lit(False)),
                asked.select(key, at=pl.col("t"), delay=pl.lit(None, pl.Float64), asked=pl.lit(True)),
            ]
        ).sort("at")
        for window, _ in WINDOWS:
            found = both.rolling("at", period=f"{window}i", group_by=key).agg(
                mean=pl.col("delay").mean(), count=pl.col("delay").count(), asked=pl.col("asked").last()
            )
            found.filter("asked")


def measured(how: str, events: int, questions: int) -> Joined:
    """In a process of its own, so that the peak is its own."""
    answer = subprocess.run(
        [sys.executable, __file__, how, str(events), str(questions)], check=True, capture_output=True, text=True
    )
    return Joined(**json.loads(answer.stdout))


def main(how: str, events: int, questions: int) -> None:
    import resource

    made, asked = history(events, questions)
    began = time.perf_counter()
    {"ours": ours, "polars": polars_rolling}[how](made, asked)
    seconds = round(time.perf_counter() - began, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    features = len(KEYS) * len(WINDOWS) * len(FUNCTIONS)
    print(
        json.dumps(
            {"events": events, "questions": questions, "features": features, "seconds": seconds, "peak_mb": peak}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
