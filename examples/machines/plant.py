"""A made-up plant: two dozen machines whose bearings wear out and are replaced, and the sensors that hear it.

Nothing here is random but by `SEED`: the same seed gives the same five months.

A bearing wears from 0 to 1, faster under load, and is replaced at 1. What a machine is called depends on its wear:

| | ok | worn | failing |
| --- | --- | --- | --- |
| bearings of the old supplier | below 0.55 | below 0.82 | from 0.82 |
| bearings of the new one, mounted from `NEW_SUPPLIER` on | below 0.35 | below 0.62 | from 0.62 |

Sensors hear the wear alone: a bearing of either supplier sounds the same at the same wear. So nothing that is measured changes
with the supplier, only what it means (the drift that labels alone show). From `RECALIBRATED` on every humidity sensor says
`HUMIDITY_MORE` points more, and humidity says nothing about a bearing (the drift that does not matter).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

SEED = 20240401
BEGIN, END = datetime(2024, 4, 1, tzinfo=UTC), datetime(2024, 8, 29, tzinfo=UTC)
RECALIBRATED = datetime(2024, 5, 20, tzinfo=UTC)
NEW_SUPPLIER = datetime(2024, 6, 24, tzinfo=UTC)
"""Bearings live about eighteen days: after three weeks nearly all are of the new supplier."""
HUMIDITY_MORE = 15.0

MACHINES = 24
ASKED_EVERY = timedelta(hours=4)
INSPECTED_AFTER = timedelta(hours=3)
LIFE_HOURS = 18 * 24
"""Of a bearing under full load half of the time."""
STATES = ["ok", "worn", "failing"]
OLD, NEW = (0.55, 0.82), (0.35, 0.62)


def five_months(seed: int = SEED) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Hourly readings (machine, measured_at, vibration in mm/s, temperature in °C, current in A, humidity in %), and the true
    state each four hours (machine, line, load planned for these hours, asked_at, state). Both sorted by time, then machine."""
    rng = np.random.default_rng(seed)
    hours = pl.datetime_range(BEGIN, END, "1h", closed="left", time_unit="us", eager=True)
    parts = [_machine(rng, hours, number) for number in range(MACHINES)]
    every = ASKED_EVERY // timedelta(hours=1)
    all_hours = pl.concat(parts).sort("at", "machine")
    readings = all_hours.select("machine", pl.col("at").alias("measured_at"), *SENSORS)
    asked = all_hours.filter(pl.col("at").dt.hour() % every == 0)
    return readings, asked.select("machine", "line", "load", pl.col("at").alias("asked_at"), "state")


SENSORS = ("vibration", "temperature", "current", "humidity")


def _machine(rng: np.random.Generator, hours: pl.Series, number: int) -> pl.DataFrame:
    count = len(hours)
    load = np.repeat(rng.choice([0.3, 0.6, 0.9], size=count // 4 + 1), 4)[:count]  # planned for four hours
    pace = rng.gamma(30.0, 1 / 30.0, count) * (0.4 + load) / LIFE_HOURS
    wear, limits = _worn(rng, hours, pace)
    own = rng.normal(0.0, 0.12)  # two machines of one kind never sound alike
    noise = rng.normal(size=(len(SENSORS), count))
    at = np.arange(count)
    recalibrated = (hours >= RECALIBRATED).to_numpy()
    sensed = {
        "vibration": np.exp(0.2 + own + 1.5 * wear**2 + 0.25 * load + 0.22 * noise[0]),
        "temperature": 38 + 14 * load + 9 * wear + 3 * np.sin(2 * np.pi * (at - 9) / 24) + 2.0 * noise[1],
        "current": 10 + 8 * load + 2.0 * wear + 0.8 * noise[2],
        "humidity": 45 + 5 * np.sin(2 * np.pi * (at - 3) / 24) + HUMIDITY_MORE * recalibrated + 6.0 * noise[3],
    }
    state = np.asarray(STATES)[(wear >= limits[:, 0]).astype(int) + (wear >= limits[:, 1])]
    return pl.DataFrame(
        {"at": hours, "load": load, "state": state.tolist()} | {name: found.round(2) for name, found in sensed.items()}
    ).with_columns(machine=pl.lit(f"press-{number:02d}"), line=pl.lit("abc"[number % 3]))


def _worn(rng: np.random.Generator, hours: pl.Series, pace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wear at each hour, and where this bearing begins to be worn and to fail."""
    wear, limits = np.empty(len(pace)), np.empty((len(pace), 2))
    now, kind = rng.random(), OLD
    for i, (hour, step) in enumerate(zip(hours, pace, strict=True)):
        now += step
        if now >= 1.0:
            now, kind = 0.0, NEW if hour >= NEW_SUPPLIER else OLD
        wear[i], limits[i] = now, kind
    return wear, limits
