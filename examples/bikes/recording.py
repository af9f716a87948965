"""Half a year of bike rides as events: what `millstream replay` and `millstream demo` send. `bike_city.py` makes them up.

- Each station is asked about every three hours (`bikes-hours`, the question);
- what was taken in them is reported two minutes after their end (`bikes-rides`, the label); a silent station reports nothing;
- the weather of three hours is reported one minute after their end (`bikes-weather`).
"""

from __future__ import annotations

import polars as pl
from bike_city import SPAN, half_year

SCORED_FROM = "2024-03-01T00:00:00Z"

RFC3339 = "%Y-%m-%dT%H:%M:%SZ"
CITY = "millstream-on-sea"


def recording() -> dict[str, pl.DataFrame]:
    """Stream → events in the order in which they became known; `known_at` is when (µs, UTC), the rest is the event."""
    stations, weather = half_year()
    ended = pl.col("hour_at") + pl.duration(hours=SPAN)
    named = stations.with_columns(
        city=pl.lit(CITY),
        hour=pl.col("hour_at").dt.hour().cast(pl.Int64),
        weekday=pl.col("hour_at").dt.weekday().cast(pl.Int64) - 1,
        slot=pl.format("{}-{}", "station", pl.col("hour_at").dt.strftime("%Y-%m-%dT%H")),
    )
    return {
        "bikes-hours": named.select(
            "slot",
            known_at=pl.col("hour_at").dt.epoch("us"),
            hour_at=pl.col("hour_at").dt.strftime(RFC3339),
            station="station",
            city="city",
            kind="kind",
            docks="docks",
            hour="hour",
            weekday="weekday",
        ),
        "bikes-rides": named.drop_nulls("rides").select(
            "slot",
            known_at=(ended + pl.duration(minutes=2)).dt.epoch("us"),
            ended_at=ended.dt.strftime(RFC3339),
            station="station",
            city="city",
            hour="hour",
            rides="rides",
        ),
        "bikes-weather": weather.select(
            reading=pl.format("{}-{}", pl.lit(CITY), pl.col("hour_at").dt.strftime("%Y-%m-%dT%H")),
            known_at=(ended + pl.duration(minutes=1)).dt.epoch("us"),
            measured_at=ended.dt.strftime(RFC3339),
            city=pl.lit(CITY),
            temperature="temperature",
            rain="rain",
        ),
    }
