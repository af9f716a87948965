"""Health is about progress and what is missing; the clock stands where the test puts it."""

from __future__ import annotations

from millstream.runtime.health import Health, Progress


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_records_that_wait_while_nothing_moves_mean_stuck() -> None:
    clock = Clock()
    health, tiles = Health(stall_after=120), Progress("features-tiles on flights", clock)
    health.watch(tiles)
    tiles.saw("flights", 0, lag=50)

    clock.seconds += 120
    assert health.not_alive() == []
    clock.seconds += 1
    assert health.not_alive() == ["features-tiles on flights: 50 records wait and nothing was handled for 121 s"]


def test_a_quiet_topic_is_not_stuck() -> None:
    clock = Clock()
    health, tiles = Health(stall_after=120), Progress("features-tiles", clock)
    health.watch(tiles)
    tiles.saw("flights", 0, lag=50)
    tiles.saw("flights", 0, lag=0)

    clock.seconds += 100_000
    assert health.not_alive() == []


def test_a_slow_consumer_that_moves_is_alive() -> None:
    clock = Clock()
    health, tiles = Health(stall_after=120), Progress("features-tiles", clock)
    health.watch(tiles)
    for lag in (1_000_000, 999_000, 998_000):
        tiles.saw("flights", 0, lag)
        clock.seconds += 100

    assert health.not_alive() == []


def test_partitions_that_moved_away_are_not_ours_to_answer_for() -> None:
    clock = Clock()
    health, tiles = Health(stall_after=120), Progress("features-tiles", clock)
    health.watch(tiles)
    tiles.saw("flights", 0, lag=50)
    tiles.revoked()

    clock.seconds += 1000
    assert health.not_alive() == []


def test_what_is_missing_is_named_until_it_is_there() -> None:
    health = Health(stall_after=120)
    health.waiting_for("kafka", "Kafka at kafka:9092 is not connected yet; check MILLSTREAM_KAFKA")
    health.waiting_for("models", "no model yet")

    health.met("kafka")
    health.met("what nobody waited for")

    assert health.not_ready() == {"models": "no model yet"}


def test_an_error_nobody_expected_is_no_life() -> None:
    health = Health(stall_after=120)
    health.fatal = ZeroDivisionError("a bug")

    assert health.not_alive() == ["ZeroDivisionError: a bug"]
