"""What changes in the made-up recordings, and what does not: the readmes promise it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import polars as pl
import pytest

from .example import EXAMPLES


def _module(folder: str, name: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES / folder))
        __import__(name)
        yield sys.modules.pop(name)


@pytest.fixture(scope="module")
def bike_city() -> Iterator[ModuleType]:
    yield from _module("bikes", "bike_city")


@pytest.fixture(scope="module")
def plant() -> Iterator[ModuleType]:
    yield from _module("machines", "plant")


@pytest.fixture(scope="module")
def half_year(bike_city: ModuleType) -> tuple[pl.DataFrame, pl.DataFrame]:
    return bike_city.half_year()


@pytest.fixture(scope="module")
def five_months(plant: ModuleType) -> tuple[pl.DataFrame, pl.DataFrame]:
    return plant.five_months()


def around(column: str, moment: object, days: int) -> tuple[pl.Expr, pl.Expr]:
    """Rows of so many days before and after `moment`."""
    span = pl.duration(days=days)
    at = pl.col(column)
    return at.is_between(pl.lit(moment) - span, pl.lit(moment), closed="left"), at.is_between(
        pl.lit(moment), pl.lit(moment) + span, closed="left"
    )


def test_the_metro_halves_the_rides_of_its_neighbours_alone(
    bike_city: ModuleType, half_year: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    stations, _ = half_year
    before, after = around("hour_at", bike_city.METRO, 28)
    near = pl.col("station").is_in(list(bike_city.NEAR_METRO))
    fall = {
        name: stations.filter(after & which)["rides"].mean() / stations.filter(before & which)["rides"].mean()
        for name, which in {"near": near, "far": ~near}.items()
    }
    # The season goes on in both.
    assert fall["near"] / fall["far"] == pytest.approx(0.5, abs=0.06)


def test_the_season_more_than_doubles_the_rides_where_no_metro_is(
    bike_city: ModuleType, half_year: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    stations, _ = half_year
    far = stations.filter(~pl.col("station").is_in(list(bike_city.NEAR_METRO)))
    by_month = far.group_by(pl.col("hour_at").dt.month().alias("month")).agg(pl.col("rides").mean()).sort("month")
    assert by_month["rides"][:5].is_sorted()
    assert by_month["rides"][5] > 2 * by_month["rides"][0]


def test_the_sensor_has_no_values_for_one_week(
    bike_city: ModuleType, half_year: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    _, weather = half_year
    broken = weather.filter(pl.col("temperature").is_null())
    assert len(broken) == 7 * 24 // bike_city.SPAN
    assert broken["hour_at"].min() == bike_city.SENSOR_BROKE
    assert broken["rain"].null_count() == len(broken) == weather["rain"].null_count()


def test_the_new_supplier_changes_what_a_sound_means_and_not_the_sound(
    plant: ModuleType, five_months: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    readings, checks = five_months
    old = pl.col("measured_at") < plant.NEW_SUPPLIER
    new = pl.col("measured_at") >= plant.NEW_SUPPLIER + pl.duration(days=28)
    for sensor in ("vibration", "temperature", "current"):
        deciles = [readings.filter(which)[sensor].quantile(q / 10) for which in (old, new) for q in range(1, 10)]
        assert deciles[:9] == pytest.approx(deciles[9:], rel=0.06), sensor
    heard = checks.join(readings, left_on=["machine", "asked_at"], right_on=["machine", "measured_at"])
    quiet = heard.filter(pl.col("vibration").is_between(2.0, 2.5))
    ok = [
        (quiet.filter(which)["state"] == "ok").mean()
        for which in (
            pl.col("asked_at") < plant.NEW_SUPPLIER,
            pl.col("asked_at") >= plant.NEW_SUPPLIER + pl.duration(days=28),
        )
    ]
    assert ok[0] > ok[1] + 0.2


def test_humidity_moves_and_says_nothing_before_or_after(
    plant: ModuleType, five_months: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    readings, checks = five_months
    before, after = around("measured_at", plant.RECALIBRATED, 9)
    moved = readings.filter(after)["humidity"].mean() - readings.filter(before)["humidity"].mean()
    assert moved == pytest.approx(plant.HUMIDITY_MORE, abs=0.3)
    heard = checks.join(readings, left_on=["machine", "asked_at"], right_on=["machine", "measured_at"])
    failing = heard.with_columns(failing=(pl.col("state") == "failing").cast(pl.Float64))
    old = failing.filter(pl.col("asked_at") < plant.RECALIBRATED)
    assert abs(old.select(pl.corr("humidity", "failing")).item()) < 0.1
    assert abs(old.select(pl.corr("vibration", "failing")).item()) > 0.5


def test_another_seed_is_another_city_and_another_plant(
    bike_city: ModuleType, plant: ModuleType, half_year: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    other, _ = bike_city.half_year(seed=1)
    assert other.drop("rides").equals(half_year[0].drop("rides"))
    assert not other.equals(half_year[0])
    assert not plant.five_months(seed=1)[0].equals(plant.five_months(seed=2)[0])
