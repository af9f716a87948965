"""The point-in-time join gives what the naive recount gives, for every function, window, lateness and disorder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.join import windowed_values
from millstream_tiles.recount import Event, recount

MINUTE = 60_000_000
HOUR = 60 * MINUTE


def a_view(
    *aggregates: Aggregate,
    keys: tuple[str, ...] = ("origin",),
    lateness: int = 2 * HOUR,
    event_id: str | None = None,
    where: str | None = None,
) -> View:
    return View(
        name="delays",
        stream="flights-departed",
        keys=keys,
        time_field="departed_at",
        lateness=lateness,
        event_id=event_id,
        aggregates=aggregates,
        where=where,
    )


def aggregate(function: Function, *, window: int = HOUR, slide: int = 10 * MINUTE, column: str = "delay") -> Aggregate:
    return Aggregate(
        name=f"{function}_{column}_{window}_{slide}",
        function=function,
        column=column,
        window=window,
        slide=slide,
        k=3 if function is Function.LAST_K else 0,
    )


def departure(
    at: int,
    delay: float | int | None,
    *,
    known: int | None = None,
    origin: str | None = "JFK",
    offset: int = 0,
    **more: object,
) -> Event:
    return Event(
        event_time=at,
        known_at=at if known is None else known,
        offset=offset,
        columns={"origin": origin, "delay": delay, "carrier": "AA", "flight_id": None, **more},
    )


def as_frame(view: View, events: list[Event]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "_event_time": [e.event_time for e in events],
            "_known_at": [e.known_at for e in events],
            "_partition": [e.partition for e in events],
            "_offset": [e.offset for e in events],
            "_id": [e.columns.get(view.event_id or "") for e in events],
            "flight_id": [e.columns.get("flight_id") for e in events],
            "origin": [e.columns.get("origin") for e in events],
            "carrier": [e.columns.get("carrier") for e in events],
            "delay": [e.columns.get("delay") for e in events],
        },
        schema={
            "_event_time": pl.Int64,
            "_known_at": pl.Int64,
            "_partition": pl.Int32,
            "_offset": pl.Int64,
            "_id": pl.String,
            "flight_id": pl.String,
            "origin": pl.String,
            "carrier": pl.String,
            "delay": pl.Float64,
        },
    )


def join(
    view: View, events: list[Event], questions: Sequence[tuple[tuple[object, ...], int]]
) -> dict[str, list[float]]:
    keys = pl.DataFrame(
        [[key[i] for key, _ in questions] for i in range(len(view.keys))], schema=dict.fromkeys(view.keys, pl.String)
    )
    t = np.array([t for _, t in questions], dtype=np.int64)
    return {name: values.tolist() for name, values in windowed_values(view, as_frame(view, events), keys, t).items()}


ROUNDED = (Function.SUM, Function.MEAN, Function.VAR, Function.STD)


def assert_same_as_recount(
    view: View, events: list[Event], questions: Sequence[tuple[tuple[object, ...], int]]
) -> None:
    joined = join(view, events, questions)
    largest = max((abs(float(e.columns["delay"] or 0)) for e in events), default=0.0)  # type: ignore[arg-type]
    for row, (key, t) in enumerate(questions):
        for feature in view.aggregates:
            expected = recount(view, events, key, t)[feature.name]
            found = joined[feature.name][row]
            if isinstance(found, list):
                assert [v for v in found if not math.isnan(v)] == (expected or []), (feature, key, t)
            elif expected is None:
                assert math.isnan(found), (feature, key, t)
            elif feature.function not in ROUNDED:
                assert found == expected, (feature, key, t)
            else:
                # Relative to what was added: where values cancel, no sum of doubles has more digits.
                added = largest**2 if feature.function is Function.VAR else largest
                assert found == pytest.approx(expected, rel=1e-9, abs=1e-14 * added * (len(events) + 1)), (
                    feature,
                    key,
                    t,
                )


NUMBERS = st.one_of(
    st.none(),
    st.integers(-5, 5).map(float),
    st.floats(-1e6, 1e6),
    st.floats(1e9, 1e9 + 10),
    st.sampled_from([2.0**53, 2.0**54, 0.0, -0.0]),
)
DISORDER = st.one_of(
    st.just(0), st.integers(-5, 30).map(lambda m: m * MINUTE), st.integers(-5, 300).map(lambda m: m * MINUTE)
)


@st.composite
def departures(draw: st.DrawFn) -> list[Event]:
    n = draw(st.integers(0, 60))
    events = []
    for offset in range(n):
        at = draw(st.integers(0, 12 * 60)) * MINUTE + draw(st.integers(-1, 1))
        events.append(
            Event(
                event_time=at,
                known_at=at + draw(DISORDER),
                partition=draw(st.integers(0, 2)),
                offset=offset,
                columns={
                    "origin": draw(st.sampled_from(["EWR", "JFK", "LGA", None])),
                    "carrier": draw(st.sampled_from(["AA", "UA"])),
                    "delay": draw(NUMBERS),
                    "flight_id": draw(st.sampled_from([None, "f1", "f2", "f3"])),
                },
            )
        )
    return events


COLUMNS = {Function.COUNT: ["delay", "*"], Function.COUNT_DISTINCT: ["delay", "carrier", "flight_id"]}


@st.composite
def views(draw: st.DrawFn) -> View:
    aggregates = {}
    for _ in range(draw(st.integers(1, 6))):
        slide = draw(st.sampled_from([MINUTE, 10 * MINUTE, HOUR]))
        function = draw(st.sampled_from(list(Function)))
        one = aggregate(
            function,
            slide=slide,
            window=slide * draw(st.integers(1, 12)),
            column=draw(st.sampled_from(COLUMNS.get(function, ["delay"]))),
        )
        aggregates[one.name] = one
    return a_view(
        *aggregates.values(),
        keys=draw(st.sampled_from([("origin",), ("origin", "carrier"), ()])),
        lateness=draw(st.sampled_from([0, 10 * MINUTE, HOUR, 6 * HOUR])),
        event_id=draw(st.sampled_from([None, "flight_id"])),
        where=draw(st.sampled_from([None, "carrier == 'AA'", "not delay > 2", "delay * 2 < 5 or flight_id is null"])),
    )


@pytest.mark.parametrize("largest", [2**62, 1], ids=["places", "ranks"])
@given(view=views(), events=departures(), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_view_over_any_events_is_what_a_recount_says(
    largest: int, view: View, events: list[Event], data: st.DataObject
) -> None:
    """Also where keys and times are too many for one integer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("millstream_tiles.join.LARGEST_PLACE", largest)
        check_any_view(view, events, data)


def check_any_view(view: View, events: list[Event], data: st.DataObject) -> None:
    moments = [0, *(e.event_time for e in events), *(e.known_at for e in events), *(e.known_at - 1 for e in events)]
    names: dict[str, list[object]] = {"origin": ["EWR", "JFK", "XXX", None], "carrier": ["AA", "UA"]}
    keys = st.tuples(*(st.sampled_from(names[k]) for k in view.keys))
    times = st.one_of(st.sampled_from(moments), st.integers(-60, 18 * 60).map(lambda m: m * MINUTE))
    questions = data.draw(st.lists(st.tuples(keys, times), max_size=12))
    assert_same_as_recount(view, events, questions)


ALL = tuple(aggregate(f) for f in Function)


def test_a_departure_counts_from_the_moment_it_is_known_not_from_when_it_happened() -> None:
    view = a_view(aggregate(Function.COUNT))
    events = [departure(9 * HOUR + 50 * MINUTE, 7.0, known=10 * HOUR + 20 * MINUTE)]
    asked = [(("JFK",), 10 * HOUR), (("JFK",), 10 * HOUR + 20 * MINUTE - 1), (("JFK",), 10 * HOUR + 20 * MINUTE)]
    assert join(view, events, asked)[view.aggregates[0].name] == [0, 0, 1]


def test_the_oldest_edge_moves_by_whole_slides() -> None:
    view = a_view(aggregate(Function.COUNT, window=HOUR, slide=10 * MINUTE))
    events = [departure(5 * MINUTE, 1.0)]
    asked = [(("JFK",), HOUR - 1), (("JFK",), HOUR)]
    assert join(view, events, asked)[view.aggregates[0].name] == [1, 0]


def test_a_question_without_a_key_has_empty_windows() -> None:
    view = a_view(*ALL, keys=("origin", "carrier"))
    values = join(view, [departure(MINUTE, 3.0), departure(MINUTE, 3.0, origin=None)], [((None, "AA"), HOUR // 2)])
    for feature in view.aggregates:
        value = values[feature.name][0]
        assert value == 0 if feature.function.counts or feature.function is Function.SUM else np.isnan(value).all()


def test_no_events_and_no_questions_are_fine() -> None:
    view = a_view(*ALL)
    assert join(view, [], [(("JFK",), HOUR)])["count_delay_3600000000_600000000"] == [0]
    assert join(view, [departure(0, 1.0)], [])["sum_delay_3600000000_600000000"] == []


def test_of_two_departures_in_the_same_microsecond_last_is_the_larger_delay() -> None:
    view = a_view(aggregate(Function.LAST))
    events = [departure(MINUTE, 4.0), departure(MINUTE, 9.0), departure(MINUTE, 6.0), departure(2 * MINUTE, None)]
    assert join(view, events, [(("JFK",), 5 * MINUTE)])[view.aggregates[0].name] == [9.0]


def test_a_tail_number_given_as_an_integer_finds_the_text() -> None:
    view = a_view(aggregate(Function.COUNT))
    frame = as_frame(view, [departure(MINUTE, 1.0, origin="42")])
    keys = pl.DataFrame({"origin": [42.0, 42.0, float("nan")]})
    t = np.array([MINUTE, 0, MINUTE])
    assert windowed_values(view, frame, keys, t)[view.aggregates[0].name].tolist() == [1, 0, 0]


def test_a_million_events_of_a_large_mean_keep_nine_digits() -> None:
    rng = np.random.default_rng(11)
    n = 1_000_000
    when = np.sort(rng.integers(0, 24 * HOUR, n))
    delay = 1e9 + rng.normal(0, 1, n)
    known = when + rng.integers(0, HOUR, n)
    frame = pl.DataFrame({"_event_time": when, "_known_at": known, "origin": ["JFK"] * n, "delay": delay})
    functions = (Function.SUM, Function.MEAN, Function.VAR, Function.STD, Function.MIN)
    view = a_view(*(aggregate(f, window=6 * HOUR) for f in functions))
    t = np.array([23 * HOUR + 7])
    found = windowed_values(view, frame, pl.DataFrame({"origin": ["JFK"]}), t)
    seen = delay[(when // (10 * MINUTE) > 23 * 6 - 36) & (when // (10 * MINUTE) <= 23 * 6) & (known <= t[0])]
    direct = {
        Function.SUM: math.fsum(seen),
        Function.MEAN: math.fsum(seen) / len(seen),
        Function.MIN: float(seen.min()),
    }
    direct[Function.VAR] = math.fsum((seen - direct[Function.MEAN]) ** 2) / (len(seen) - 1)
    direct[Function.STD] = math.sqrt(direct[Function.VAR])
    for feature in view.aggregates:
        assert found[feature.name][0] == pytest.approx(direct[feature.function], rel=1e-9)


def test_one_absurd_delay_elsewhere_costs_no_digits_here() -> None:
    view = a_view(aggregate(Function.SUM))
    events = [departure(MINUTE, 2.0**53, origin="EWR"), departure(MINUTE, 0.1), departure(MINUTE, 0.2, offset=1)]
    assert join(view, events, [(("JFK",), HOUR // 2)])[view.aggregates[0].name][0] == pytest.approx(0.3, rel=1e-15)


def test_a_missing_column_is_named() -> None:
    view = a_view(aggregate(Function.SUM, column="taxi_out"))
    with pytest.raises(KeyError, match="flights-departed have no column 'taxi_out'"):
        join(view, [departure(0, 1.0)], [(("JFK",), HOUR)])
    with pytest.raises(KeyError, match="the questions have no column 'origin'"):
        windowed_values(a_view(*ALL), as_frame(view, []), pl.DataFrame({"dest": ["SFO"]}), np.array([0]))
