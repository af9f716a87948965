"""The prediction log in columns, and what is compared in it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from millstream.contracts.events import PredictionServed
from millstream_cli.comparison import differences, sample
from millstream_cli.predictions import OWN, PredictionLog

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def answer(
    number: int, *, loop: str = "delays", output: dict[str, float] | None = None, **given: dict[str, float | int | None]
) -> PredictionServed:
    return PredictionServed(
        id=f"p{number}",
        loop=loop,
        question=f"q{number}",
        key=f"k{number}",
        asked_at=NOON.replace(minute=number),
        version="1",
        variant="champion",
        transport="kafka",
        entities={"carrier": "B6"},
        inputs={"distance": number},
        features=given.get("features", {}),
        output=output or {"probability": 0.25},
        timings_ms={},
    )


def test_answers_become_columns_in_the_order_of_asking_each_loop_alone() -> None:
    log = PredictionLog()
    log.add([answer(2, features={"delays__mean": 3, "delays__n": None}), answer(5, loop="tides")])
    log.add([answer(1, features={"delays__mean": 2.5, "delays__n": 4})])

    frame = log.frame("delays")

    assert log.served == {"delays": 2, "tides": 1}
    assert frame["id"].to_list() == ["p1", "p2"]
    assert frame["features.delays__mean"].to_list() == [2.5, 3.0]
    assert frame["features.delays__n"].to_list() == [4.0, None]
    assert frame["inputs.distance"].to_list() == [1, 2]
    assert frame["entities.carrier"].to_list() == ["B6", "B6"]
    assert len(log.frame("tides")) == 1


def test_what_was_answered_is_there_whatever_the_task() -> None:
    log = PredictionLog()
    log.add([answer(1, output={"ok": 0.75, "worn": 0.25})])
    log.add(
        [answer(2, output={"ok": 0.5, "worn": 0.25, "failing": 0.25}), answer(3, loop="tides", output={"value": 7})]
    )

    assert log.frame("delays")["output.ok"].to_list() == [0.75, 0.5]
    assert log.frame("delays")["output.failing"].to_list() == [None, 0.25]
    assert log.frame("tides")["output.value"].to_list() == [7.0]


def test_a_loop_without_answers_has_the_columns_and_no_row() -> None:
    assert PredictionLog().frame("nobody").schema == pl.Schema(OWN)


def test_two_nulls_agree_and_a_null_beside_a_number_is_infinitely_apart() -> None:
    nan = float("nan")
    found = differences(np.array([1.0, nan, nan, 2.0]), np.array([1.5, nan, 3.0, nan]))
    assert found.tolist() == [0.5, 0.0, float("inf"), float("inf")]


def test_a_sample_is_the_same_every_time_and_keeps_the_order() -> None:
    frame = pl.DataFrame({"asked_at": range(100)})
    first = sample(frame, 10)
    assert first["asked_at"].is_sorted()
    assert len(first) == 10
    assert first.equals(sample(frame, 10))
    assert sample(frame, 1000).equals(frame)
