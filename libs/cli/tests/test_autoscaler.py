"""KEDA's arithmetic and the autoscaler's, case by case as their sources have them."""

from __future__ import annotations

import pytest

from millstream_cli.autoscaler import Autoscaler, Behavior, KafkaTrigger, Lag, LagReader, Pace


def reader(threshold: int = 100, *, limit: bool = True, persistent: bool = True) -> LagReader:
    """A scaler that has seen nothing."""
    return LagReader(
        KafkaTrigger(
            name="t", lag_threshold=threshold, limit_to_partitions_with_lag=limit, exclude_persistent_lag=persistent
        )
    )


def test_lag_is_what_the_group_has_yet_to_read() -> None:
    assert reader().read({0: 90, 1: 40}, {0: 100, 1: 100}) == Lag(metric=70, active=True)
    assert reader().read({0: 100, 1: 100}, {0: 100, 1: 100}) == Lag(metric=0, active=False)


def test_a_group_that_never_committed_has_all_before_it() -> None:
    assert reader(1_000).read({0: None}, {0: 500}) == Lag(metric=500, active=True)


def test_lag_that_nobody_works_on_counts_once_and_keeps_a_replica() -> None:
    one = reader()
    assert one.read({0: 40, 1: 40}, {0: 50, 1: 50}).metric == 20
    assert one.read({0: 40, 1: 45}, {0: 50, 1: 50}) == Lag(metric=5, active=True), "partition 0 is stuck"
    assert one.read({0: 40, 1: 45}, {0: 50, 1: 50}) == Lag(metric=0, active=True)
    other = reader(persistent=False)
    assert [other.read({0: 40}, {0: 50}).metric for _ in range(2)] == [10, 10]


@pytest.mark.parametrize(
    ("lags", "limit", "metric"),
    [
        ([5_000, 0, 0], True, 100),  # one partition has lag: one replica
        ([5_000, 1, 1], True, 300),
        ([5_000, 0, 0], False, 300),
        ([130, 130, 130], True, 390),  # 390 // 100 is no more than 3: four replicas for three partitions pass
        ([140, 130, 130], True, 300),
    ],
)
def test_the_cap_is_by_whole_numbers(lags: list[int], limit: bool, metric: int) -> None:
    ends = dict(enumerate(lags))
    assert reader(limit=limit).read(dict.fromkeys(ends, 0), ends).metric == metric


def looks(scaler: Autoscaler, replicas: int, metrics: list[float], threshold: float = 100) -> list[int]:
    """Replicas after each look, 15 s apart."""
    found = []
    for number, metric in enumerate(metrics):
        replicas = scaler.decide(replicas, [(metric, threshold)], 15.0 * number)
        found.append(replicas)
    return found


def test_it_goes_up_when_half_a_minute_agrees_and_by_four_a_minute() -> None:
    assert looks(Autoscaler(least=1, most=20), 1, [0, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]) == [
        *(1, 1, 5, 5, 5, 5, 9, 9)
    ], "the first of two looks that agree is not enough; the next four come a minute later"


def test_a_peak_of_one_look_changes_nothing() -> None:
    assert looks(Autoscaler(least=1, most=20), 1, [0, 1_000, 0, 0]) == [1, 1, 1, 1]


def test_it_goes_down_when_ten_minutes_agree_and_by_one_in_two() -> None:
    found = looks(Autoscaler(least=1, most=20), 4, [400, *[0] * 60])

    assert found[:40] == [4] * 40, "ten minutes of looks"
    assert found[40:57] == [3] * 8 + [2] * 8 + [1]
    assert found[-1] == 1


def test_what_is_nearly_right_stays() -> None:
    eager = Behavior(up=Pace(window=0, pods=9, period=15), down=Pace(window=0, pods=9, period=15))
    assert looks(Autoscaler(least=1, most=20, behavior=eager), 4, [439, 361, 445]) == [4, 4, 5]


def test_the_bounds_hold_and_the_largest_wish_counts() -> None:
    eager = Behavior(up=Pace(window=0, pods=99, period=15), down=Pace(window=0, pods=99, period=15))
    assert looks(Autoscaler(least=2, most=6, behavior=eager), 3, [9_999, 0]) == [6, 2]
    scaler = Autoscaler(least=1, most=9, behavior=eager)
    assert scaler.decide(1, [(100, 100), (700, 100), (0, 10)], 0.0) == 7


def test_the_first_comes_at_once_and_the_last_goes_after_the_cooldown() -> None:
    scaler = Autoscaler(least=0, most=6, cooldown=60)
    assert scaler.activate(0, active=False, now=0.0) == 0
    assert scaler.decide(0, [(9_999, 100)], 0.0) == 0, "the autoscaler is off"
    assert scaler.activate(0, active=True, now=15.0) == 1
    assert scaler.activate(1, active=False, now=60.0) == 1
    assert scaler.activate(1, active=False, now=75.0) == 0
    assert Autoscaler(least=1, most=6).activate(1, active=False, now=1e9) == 1
