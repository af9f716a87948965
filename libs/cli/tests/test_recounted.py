"""The naive recount judges what was logged: it agrees where nothing went wrong, and sees where something did."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from millstream.contracts.times import HOUR, MINUTE, from_rfc3339, to_rfc3339
from millstream_cli.recounted import measure_recount
from millstream_cli.ticks import Ticks
from millstream_tiles.definition import Aggregate, Function, View

JANUARY = from_rfc3339("2013-01-01T00:00:00Z")
VIEW = View(
    name="by_origin",
    stream="departed",
    keys=("origin",),
    time_field="at",
    lateness=HOUR,
    event_id="id",
    aggregates=(
        Aggregate(name="mean_delay_3h", function=Function.MEAN, column="delay", window=3 * HOUR, slide=5 * MINUTE),
        Aggregate(name="flights_1h", function=Function.COUNT, column="delay", window=HOUR, slide=5 * MINUTE),
    ),
)


def departures() -> pl.DataFrame:
    rng = random.Random(5)
    minutes = sorted(rng.randrange(24 * 60) for _ in range(400))
    return pl.DataFrame(
        {
            "id": [f"f{n}" for n in range(400)],
            "at": [to_rfc3339(JANUARY + m * MINUTE) for m in minutes],
            "known_at": [JANUARY + m * MINUTE for m in minutes],
            "origin": [rng.choice(["EWR", "JFK"]) for _ in minutes],
            "delay": [float(rng.randrange(60)) for _ in minutes],
        }
    )


def by_hand(rows: pl.DataFrame, origin: str, t: int, window: int) -> list[float]:
    """Delays in the window that ends with the five minutes of `t`, known by the tick that ended by then."""
    end = (t // (5 * MINUTE) + 1) * 5 * MINUTE
    return [
        row["delay"]
        for row in rows.iter_rows(named=True)
        if row["origin"] == origin
        and end - window <= from_rfc3339(row["at"]) < end
        and (row["known_at"] // HOUR + 1) * HOUR <= t
    ]


@pytest.fixture
def answers() -> pl.DataFrame:
    asked = [(origin, JANUARY + hour * HOUR) for hour in range(2, 24) for origin in ("EWR", "JFK", "LGA")]
    rows = departures()
    means = [by_hand(rows, origin, t, 3 * HOUR) for origin, t in asked]
    return pl.DataFrame(
        {
            "question": [f"{origin} {t}" for origin, t in asked],
            "asked_at": [t for _, t in asked],
            "entities.origin": [origin for origin, _ in asked],
            "features.by_origin__mean_delay_3h": [sum(m) / len(m) if m else None for m in means],
            "features.by_origin__flights_1h": [float(len(by_hand(rows, origin, t, HOUR))) for origin, t in asked],
        }
    )


@pytest.fixture
def ticks() -> Ticks:
    return Ticks({"departed": departures()}, questions=set(), tick=HOUR, until=None)


def test_what_is_right_by_hand_is_right_by_recount(answers: pl.DataFrame, ticks: Ticks) -> None:
    found = measure_recount(answers, ticks, [VIEW])
    assert (found.checked, found.values) == (66, 132)
    assert found.largest < 1e-12, found.worst


def test_one_wrong_feature_is_found_and_named(answers: pl.DataFrame, ticks: Ticks) -> None:
    wrong = answers.with_columns(
        pl.when(pl.int_range(pl.len()) == 30)
        .then(pl.col("features.by_origin__flights_1h") + 1)
        .otherwise(pl.col("features.by_origin__flights_1h"))
    )
    found = measure_recount(wrong, ticks, [VIEW])
    assert found.largest == 1.0
    assert f"features.by_origin__flights_1h of {answers['question'][30]}" in found.worst


def test_a_feature_that_lost_its_value_is_infinitely_wrong(answers: pl.DataFrame, ticks: Ticks) -> None:
    lost = answers.with_columns(pl.lit(None, pl.Float64).alias("features.by_origin__mean_delay_3h"))
    assert measure_recount(lost, ticks, [VIEW]).largest == float("inf")


def test_an_event_that_a_question_could_not_know_makes_a_difference(answers: pl.DataFrame, ticks: Ticks) -> None:
    """Known an hour earlier than it was: every window that ends within that hour is fuller than it should be."""
    early = Ticks({"departed": departures()}, questions={"departed"}, tick=HOUR, until=None)
    assert measure_recount(answers, early, [VIEW]).largest > 1


def test_the_definition_is_read_from_the_flights(tmp_path: Path) -> None:
    """Names of the log are those of the views: none of the flights' features goes unchecked."""
    from millstream_tiles.registry import describe

    catalogue = describe(Path(__file__).parents[3] / "examples" / "flights" / "features")
    ours = {f"{view.name}__{a.name}" for view in catalogue.views.values() for a in view.aggregates}
    assert set(catalogue.services["delay_v1"]) <= ours
