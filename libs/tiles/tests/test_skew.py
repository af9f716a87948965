"""Logged features beside the lake's: equal where nothing went wrong, and where something did, the events that explain it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from millstream_tiles.definition import Aggregate, Function
from millstream_tiles.key_events import Fate, key_events, marked
from millstream_tiles.recount import Event, recount
from millstream_tiles.reservoir import Reservoir
from millstream_tiles.service_views import Logs, ServiceView
from millstream_tiles.skew import Logged, check_reads, differ
from millstream_tiles.why import Guess, explain_value

from .skew_story import HOUR, MARCH, MINUTE, SERVICE, VIEW, flight, lake_of


def read_at(minute: int, events: Sequence[Event], number: int = 0) -> Logged:
    """What a scorer that is never wrong logs at a minute of March."""
    t = MARCH + minute * MINUTE
    values = recount(VIEW, events, ("JFK", 7), t)
    features = {f"now__{name}": value for name, value in values.items()} | {"weather__wind": 3.0}
    return Logged(
        id=f"p{number}", question=f"q{number}", asked_at=t, entities={"from": "JFK", "gate": 7.0}, features=features
    )


@pytest.fixture
def events() -> list[Event]:
    rng = random.Random(3)
    flights = [
        flight(n, minute=(at := rng.uniform(0, 600)), known=at + rng.expovariate(0.1), delay=rng.uniform(-5, 60))
        for n in range(300)
    ]
    return sorted(flights, key=lambda e: e.known_at)


def test_what_was_read_right_does_not_differ(tmp_path: Path, events: list[Event]) -> None:
    lake = lake_of(tmp_path, events)
    reads = [read_at(minute, events, minute) for minute in range(30, 600, 30)]
    checked = check_reads(lake, [SERVICE], reads)
    assert [c.logged for c in checked] == reads
    assert [c.differences for c in checked] == [()] * len(reads)
    assert {tuple(c.values.items()) for c in checked} == {(("now", 2),)}, "the wind is no window"


def test_wrong_values_are_found_where_they_are(tmp_path: Path, events: list[Event]) -> None:
    lake = lake_of(tmp_path, events)
    good = read_at(400, events)
    wrong = replace(good, features=good.features | {"now__flights_3h": good.features["now__flights_3h"] + 1})
    lost = replace(good, features=good.features | {"now__mean_1h": None})
    checked = check_reads(lake, [SERVICE], [good, wrong, lost, replace(good, entities={"from": "JFK"})])
    assert checked[0].differences == ()
    [one] = checked[1].differences
    assert (one.feature, one.logs.aggregate.name, one.apart) == ("now__flights_3h", "flights_3h", 1.0)
    [one] = checked[2].differences
    assert (one.feature, one.online, one.apart) == ("now__mean_1h", None, float("inf"))
    assert checked[3].values == {}, "without its key there is nothing to compare with"


def test_numbers_differ_by_a_share_and_nulls_differ_from_everything() -> None:
    assert not differ(None, None)
    assert not differ(float("nan"), None)
    assert differ(0.0, None)
    assert not differ(1e12, 1e12 + 100)
    assert differ(1e12, 1e12 + 10_000)
    assert not differ(0.0, 1e-10)
    assert differ(7, 8, tolerance=0.0)


def test_a_key_has_its_events_with_their_fates(tmp_path: Path) -> None:
    mine = [
        flight(0, 10, known=11),
        flight(1, 20, known=95),  # late
        flight(2, 31, known=40, id="F0"),  # a copy
        flight(3, 50, known=61),
    ]
    other = replace(flight(4, 30), columns=dict(flight(4, 30).columns) | {"gate": 8})
    lake = lake_of(tmp_path, [*mine, other])
    # The first copy lies outside of the span that is asked for, and still makes a copy of the second.
    found = marked(
        VIEW,
        key_events(lake, VIEW, ("JFK", "7"), since=MARCH + 15 * MINUTE, until=MARCH + HOUR),
        ("JFK", "7"),
        MARCH + HOUR,
    )
    assert {m.event.offset: m.fate for m in found} == {
        0: Fate.COUNTED,
        1: Fate.LATE,
        2: Fate.DUPLICATE,
        3: Fate.UNKNOWN,
    }


def the_guess(events: Sequence[Event], seen: Sequence[Event], *, feature: int = 0) -> tuple[Guess, list[int]]:
    """What is said of a scorer that counted `seen` at two o'clock, whatever they were."""
    t = MARCH + 120 * MINUTE
    aggregate = VIEW.aggregates[feature]
    believed = replace(VIEW, event_id=None, lateness=2**60)
    known = [replace(e, known_at=min(e.known_at, t)) for e in seen]
    online = recount(believed, known, ("JFK", 7), t)[aggregate.name]
    logs = Logs(aggregate=aggregate, place=0)
    found = explain_value(VIEW, logs, marked(VIEW, events, ("JFK", 7), t), ("JFK", 7), t, online)
    return found.guess, [e.offset for e in found.events]


def test_each_fault_is_explained_by_its_events() -> None:
    counted = [flight(n, 70 + 5 * n, known=71 + 6 * n, delay=2.0**n) for n in range(6)]
    early = [flight(7, 119, known=121, delay=300.0), flight(8, 118, known=130, delay=500.0)]
    late = flight(9, 100, known=170, delay=1000.0)
    copy = flight(10, 75, known=110, delay=77.0, id="F2")
    every = [*counted, *early, late, copy]
    assert the_guess(every, counted[:-2]) == (Guess.MISSING, [4, 5])
    assert the_guess(every, []) == (Guess.MISSING, [0, 1, 2, 3, 4, 5]), "a lost tile looks the same: both are said"
    assert the_guess(every, [*counted, early[0]]) == (Guess.APPLIED_EARLY, [7])
    assert the_guess(every, [*counted, copy]) == (Guess.DUPLICATE_COUNTED, [10])
    assert the_guess(every, [*counted, late]) == (Guess.LATE_COUNTED, [9])
    assert the_guess(every, [*counted[:2], *counted[3:]]) == (Guess.PASSED_OVER, [2])
    assert the_guess(every, [*counted, counted[1]]) == (Guess.APPLIED_TWICE, [1])
    assert the_guess(every, [*counted, flight(20, 119, delay=12345.0)]) == (Guess.UNEXPLAINED, [])
    # A count cannot tell one event from another, and says the likeliest: the last ones had not arrived.
    assert the_guess(every, [*counted[:2], *counted[3:]], feature=1) == (Guess.MISSING, [5])


def test_only_what_its_partition_went_past_is_surely_not_late_in_coming() -> None:
    """A partition is applied in order, and waits for no other one."""
    flights = [flight(n, 70 + 5 * n, known=71 + 6 * n, delay=2.0**n) for n in range(4)]
    without_two = [*flights[:2], flights[3]]
    assert the_guess(flights, without_two) == (Guess.PASSED_OVER, [2])
    behind = [*flights[:2], replace(flights[2], partition=1), flights[3]]
    assert the_guess(behind, without_two) == (Guess.MISSING, [2])
    # Said with an earlier known-at than a record before it: the newest, and its partition went past it all the same.
    swapped = [flights[0], replace(flights[1], offset=3), flights[2], replace(flights[3], offset=1)]
    assert the_guess(swapped, swapped[:3]) == (Guess.PASSED_OVER, [1])


def test_a_reservoir_is_the_same_sample_in_any_order() -> None:
    ids = [f"prediction-{n}" for n in range(1000)]
    kept = []
    for seed in (1, 2):
        reservoir: Reservoir[str] = Reservoir(50)
        for id in random.Random(seed).sample(ids, len(ids)) + ids[:100]:
            reservoir.offer(id, id)
        assert (len(reservoir), reservoir.offered) == (50, 1100)
        kept.append(reservoir.drain())
        assert len(reservoir) == 0
    assert kept[0] == kept[1]
    assert len(set(kept[0])) == 50
    # Fair: a twentieth of any tenth of the ids, give or take.
    assert 1 <= len(set(kept[0]) & set(ids[:100])) <= 12
    nothing: Reservoir[str] = Reservoir(0)
    nothing.offer("a", "a")
    assert nothing.drain() == []


def test_lists_sketches_and_filtered_events_are_compared_too(tmp_path: Path, events: list[Event]) -> None:
    day = 24 * HOUR
    made = (
        Aggregate(name="last_2", function=Function.LAST_K, column="delay", window=HOUR, slide=HOUR, k=2),
        Aggregate(name="distinct", function=Function.COUNT_DISTINCT, column="flight_id", window=day, slide=HOUR),
        Aggregate(name="p90", function=Function.P90, column="delay", window=90 * day, slide=HOUR),
    )
    view = replace(VIEW, aggregates=made, where="delay >= 0")
    service = ServiceView(view=view, prefix="v", keys={"origin": "origin", "gate": "gate"})
    t = MARCH + 400 * MINUTE
    values = recount(view, events, ("JFK", 7), t)
    latest = values["last_2"]
    assert isinstance(latest, list)
    assert len(latest) == 2
    features = {"v__last_2__1": latest[0], "v__last_2__2": latest[1], "v__distinct": values["distinct"]}
    good = Logged(
        id="p",
        question="q",
        asked_at=t,
        entities={"origin": "JFK", "gate": 7},
        features=features | {"v__p90": values["p90"]},
    )
    wrong = replace(good, features=good.features | {"v__last_2__2": -1.0, "v__distinct": values["distinct"] + 1})
    right, found = check_reads(lake_of(tmp_path, events), [service], [good, wrong])
    assert (right.values, right.differences) == ({"v": 4}, ())
    assert [(d.feature, d.logs.place, d.offline) for d in found.differences] == [
        ("v__last_2__2", 2, latest[1]),
        ("v__distinct", 0, values["distinct"]),
    ]
    fates = {m.fate for m in marked(view, events, ("JFK", 7), t)}
    assert Fate.LEFT_OUT in fates, "who left early"
    before = [e for e in events if e.known_at <= t and e.columns["delay"] != latest[0]]
    online = recount(view, before, ("JFK", 7), t)["last_2"]
    assert isinstance(online, list)
    said = explain_value(
        view, service.features["v__last_2__2"], marked(view, events, ("JFK", 7), t), ("JFK", 7), t, online[1]
    )
    assert said.guess in (Guess.MISSING, Guess.PASSED_OVER)
