"""The simulated clock: questions at a tick's start, events at its end, empty ticks not at all."""

from __future__ import annotations

import polars as pl

from millstream.contracts.times import HOUR
from millstream.project.stream import Stream
from millstream_cli.ticks import ENCODED_AT_ONCE, Ticks

SHIPS = {
    "type": "object",
    "required": ["name", "at"],
    "properties": {"name": {"type": "string"}, "at": {"type": "string", "format": "date-time"}},
}


def frame(*hours: float) -> pl.DataFrame:
    return pl.DataFrame({"known_at": [int(h * HOUR) for h in hours], "name": [f"at {h}" for h in hours]})


def test_what_became_known_within_an_hour_is_one_tick() -> None:
    ticks = Ticks({"asked": frame(1.0, 1.9, 2.0), "landed": frame(1.5)}, questions={"asked"}, tick=HOUR, until=None)
    first, second = list(ticks)
    assert (first.start, first.end) == (HOUR, 2 * HOUR)
    assert first.questions["asked"] == [b'{"name":"at 1.0"}', b'{"name":"at 1.9"}']
    assert first.events["landed"] == [b'{"name":"at 1.5"}']
    assert second.questions["asked"] == [b'{"name":"at 2.0"}']
    assert not second.events


def test_quiet_nights_cost_no_tick() -> None:
    assert len(Ticks({"landed": frame(1.0, 50.0)}, questions=set(), tick=HOUR, until=None)) == 2


def test_until_is_excluded_and_counts_what_is_sent() -> None:
    ticks = Ticks({"landed": frame(1.0, 2.0, 3.0)}, questions=set(), tick=HOUR, until=3 * HOUR)
    assert ticks.events == 2
    assert sum(tick.size for tick in ticks) == 2


def test_every_event_is_in_exactly_one_tick() -> None:
    recording = {"asked": frame(*(i * 0.37 for i in range(200))), "landed": frame(*(i * 0.11 for i in range(500)))}
    ticks = Ticks(recording, questions={"asked"}, tick=HOUR, until=None)
    sent = [n for t in ticks for f in (*t.questions.values(), *t.events.values()) for n in f]
    assert len(sent) == 700
    assert [t.start for t in ticks] == sorted(t.start for t in ticks)


def test_known_at_stays_with_the_clock_and_is_not_sent() -> None:
    (tick,) = Ticks({"landed": frame(1.0)}, questions=set(), tick=HOUR, until=None)
    assert b"known_at" not in tick.events["landed"][0]


def test_rows_are_the_same_however_they_were_encoded() -> None:
    hours = [i / 7 for i in range(ENCODED_AT_ONCE + 500)]
    ticks = Ticks({"landed": frame(*hours)}, questions=set(), tick=9 * HOUR, until=None)
    sent = [line for tick in ticks for line in tick.events["landed"]]
    assert sent == [f'{{"name":"at {hour}"}}'.encode() for hour in hours]


def test_a_replay_goes_on_after_the_tick_that_ended_last() -> None:
    hours = frame(*(i * 0.11 for i in range(500)))
    whole = Ticks({"asked": hours}, questions={"asked"}, tick=HOUR, until=None)
    rest = Ticks({"asked": hours}, questions={"asked"}, tick=HOUR, until=None, since=20 * HOUR)
    assert rest.span == (20 * HOUR, whole.span[1])
    assert list(rest) == [tick for tick in whole if tick.end > 20 * HOUR]


def test_known_at_is_that_of_the_tick() -> None:
    recording = {"asked": frame(1.0, 1.9), "landed": frame(1.5, 2.0)}
    ticks = Ticks(recording, questions={"asked"}, tick=HOUR, until=None)
    assert list(ticks.known_at("asked")) == [HOUR, HOUR]
    assert list(ticks.known_at("landed")) == [2 * HOUR, 3 * HOUR]


def test_a_tick_longer_than_a_streams_lateness_is_told() -> None:
    said = {"description": "Ships.", "key": "name", "time": "at", "schema": SHIPS}
    streams = {
        name: Stream.model_validate({"stream": name, "lateness": lateness, **said})
        for name, lateness in [("asked", "1m"), ("landed", "10m"), ("sailed", "1h"), ("silent", "1m")]
    }
    events = {"asked": frame(1.0), "landed": frame(1.5), "sailed": frame(1.5), "silent": frame()}
    [line] = Ticks(events, questions={"asked"}, tick=HOUR, until=None).late(streams)
    assert line.startswith("landed: events will be late and in no window")
    assert line.endswith("a tick of 1h, and lateness is 10m; write --tick 10m")


def test_questions_that_count_each_other_take_turns() -> None:
    """By ship in one view and by port in another; who has no port is counted in no port."""
    asked = pl.DataFrame(
        {
            "known_at": [HOUR, HOUR, HOUR + 1, HOUR + 2, HOUR + 3, 2 * HOUR],
            "ship": ["Ada", "Ada", "Eva", "Ada", "Ida", "Ada"],
            "port": ["Oslo", "Bergen", "Oslo", None, None, "Oslo"],
        }
    )
    keys = {"asked": [("ship",), ("port",)]}
    ticks = Ticks({"asked": asked}, questions={"asked"}, tick=HOUR, until=None, apart=keys)
    first, second = list(ticks)
    assert [[line.split(b'"')[3] for line in one["asked"]] for one in first.rounds] == [
        [b"Ada", b"Ida"],
        [b"Ada", b"Eva"],
        [b"Ada"],
    ]
    assert [len(one["asked"]) for one in second.rounds] == [1]
    assert ticks.known_at("asked").tolist() == [HOUR, HOUR + 1, HOUR + 1, HOUR + 2, HOUR, 2 * HOUR]
    assert sum(tick.size for tick in ticks) == ticks.events == 6


def test_all_others_are_asked_at_once() -> None:
    (tick,) = Ticks({"asked": frame(1.0, 1.5), "landed": frame(1.0)}, questions={"asked"}, tick=HOUR, until=None)
    assert tick.rounds == [tick.questions]
