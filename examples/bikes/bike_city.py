"""A made-up city that rents out bikes: what its stations, its sensor and its riders did in half a year.

Nothing here is random but by `SEED`: the same seed gives the same half year. The clock is UTC, which this city keeps.

It tells three hours at a time. An hour's rides at a station are Poisson around
`docks x habit x warmth x rain x members x mood x metro`:

- habit: how much of its docks a kind of station rents out at this hour, on a working day or at a weekend;
- warmth: 4 % more for each degree, up to 24;
- rain: a millimetre in the hour halves the rides;
- members: from 1.0 in February to 1.6 in July, a little each day (the gradual drift; no feature tells of it but the rides);
- mood: a station's own good and bad days, remembered for about three of them;
- metro: a half from `METRO` on at the stations of `NEAR_METRO` (the abrupt drift).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

SEED = 20240201
BEGIN, END = datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 8, 1, tzinfo=UTC)
METRO = datetime(2024, 5, 6, tzinfo=UTC)
"""A new metro line opens, on a Monday."""
SENSOR_BROKE, SENSOR_MENDED = datetime(2024, 6, 24, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC)
"""The weather sensor goes on reporting, without values."""
SPAN = 3
"""Hours that are asked about, and reported, together."""
SILENT = 0.01
"""Share of spans that a station does not report: its questions never get a label."""

STATIONS = [
    ("central", "hub", 40),
    ("harbour", "hub", 34),
    ("bank", "office", 30),
    ("courthouse", "office", 24),
    ("university", "office", 36),
    ("foundry", "office", 20),
    ("northside", "home", 22),
    ("hillcrest", "home", 18),
    ("millrow", "home", 26),
    ("garden-gate", "park", 24),
    ("lake", "park", 28),
    ("zoo", "park", 20),
]
"""Name, kind, docks."""
NEAR_METRO = frozenset({"central", "bank", "university", "northside"})

# Per cent of the docks that are rented out in each hour from midnight on.
_NIGHT = [3, 2, 1, 1, 1, 4]
_CALM = [10, 8, 6, 3, 2, 2, 3, 5, 8, 12, 18, 22, 25, 25, 25, 25, 24, 22, 20, 16, 12, 10, 10, 10]
WORKING = {
    "hub": [*_NIGHT, 15, 45, 65, 40, 20, 20, 25, 25, 20, 25, 40, 60, 50, 30, 20, 12, 8, 5],
    "office": [*_NIGHT, 4, 8, 12, 12, 12, 18, 30, 25, 15, 25, 50, 70, 45, 20, 10, 6, 4, 3],
    "home": [*_NIGHT, 20, 55, 60, 30, 15, 10, 10, 10, 10, 12, 15, 18, 20, 18, 12, 8, 5, 4],
    "park": [*_NIGHT, 3, 5, 6, 8, 10, 12, 15, 15, 18, 22, 30, 35, 35, 25, 15, 8, 4, 3],
}
WEEKEND = {
    "hub": _CALM,
    "office": [0.4 * share for share in _CALM],
    "home": [0.9 * share for share in _CALM],
    "park": [5, 4, 3, 2, 1, 1, 2, 4, 8, 18, 32, 45, 55, 60, 65, 65, 60, 50, 40, 28, 18, 10, 7, 6],
}

Floats = NDArray[np.float64]


def half_year(seed: int = SEED) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spans of stations (station, kind, docks, hour_at: its beginning, rides: null where the station was silent), and of
    weather (hour_at, mean temperature in °C, rain in mm; null while the sensor was broken). Both sorted by time."""
    rng = np.random.default_rng(seed)
    hours = pl.datetime_range(BEGIN, END, "1h", closed="left", time_unit="us", eager=True)
    temperature, rain = _weather(rng, hours)
    parts = [_station(rng, hours, temperature, rain, *station) for station in STATIONS]
    spans = hours.gather_every(SPAN)
    broken = (spans >= SENSOR_BROKE) & (spans < SENSOR_MENDED)
    told = {"temperature": _by_span(temperature).mean(axis=1), "rain": _by_span(rain).sum(axis=1)}
    weather = pl.DataFrame({"hour_at": spans, **told}).with_columns(
        pl.when(~broken).then(pl.col("temperature", "rain").round(1))
    )
    return pl.concat(parts).sort("hour_at", "station"), weather


def _weather(rng: np.random.Generator, hours: pl.Series) -> tuple[Floats, Floats]:
    day = np.arange(len(hours)) / 24
    season = 12 - 9 * np.cos(2 * np.pi * (day + 16) / 365)  # coldest in the middle of January
    sunshine = 4 * np.sin(2 * np.pi * (day - 9 / 24))
    temperature = season + sunshine + _remembered(rng, len(hours), hours_kept=36, spread=3.0)
    wet = _remembered(rng, len(hours), hours_kept=10, spread=1.0)
    return temperature, np.maximum(0.0, 2.5 * (wet - 1.1))


def _station(
    rng: np.random.Generator, hours: pl.Series, temperature: Floats, rain: Floats, station: str, kind: str, docks: int
) -> pl.DataFrame:
    hour = hours.dt.hour().to_numpy()
    weekend = (hours.dt.weekday() >= 6).to_numpy()
    habit = np.where(weekend, np.asarray(WEEKEND[kind])[hour], np.asarray(WORKING[kind])[hour]) / 100
    warmth = np.exp(0.04 * (np.minimum(temperature, 24.0) - 14.0))
    members = np.linspace(1.0, 1.6, len(hours))
    mood = np.exp(_remembered(rng, len(hours), hours_kept=72, spread=0.12))
    metro = np.where((hours >= METRO).to_numpy() & (station in NEAR_METRO), 0.5, 1.0)
    rides = _by_span(rng.poisson(docks * habit * warmth * np.exp2(-rain) * members * mood * metro)).sum(axis=1)
    silent = rng.random(len(rides)) < SILENT
    return pl.DataFrame({"hour_at": hours.gather_every(SPAN), "rides": rides.astype(np.int64)}).select(
        pl.lit(station).alias("station"),
        pl.lit(kind).alias("kind"),
        pl.lit(docks, pl.Int64).alias("docks"),
        "hour_at",
        pl.when(pl.Series(~silent)).then("rides").alias("rides"),
    )


def _by_span(hourly: NDArray[Any]) -> NDArray[Any]:
    return hourly.reshape(-1, SPAN)


def _remembered(rng: np.random.Generator, length: int, *, hours_kept: float, spread: float) -> Floats:
    """An AR(1) series around 0 with standard deviation `spread`, which forgets in about `hours_kept` hours."""
    keep = float(np.exp(-1 / hours_kept))
    steps = rng.normal(0.0, spread * np.sqrt(1 - keep**2), length)
    found = np.empty(length)
    now = rng.normal(0.0, spread)
    for i, step in enumerate(steps):
        now = keep * now + step
        found[i] = now
    return found
