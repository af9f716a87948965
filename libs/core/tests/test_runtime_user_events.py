"""The short way of good events and the long way that names what is odd say the same of every record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.contracts.times import from_rfc3339
from millstream.errors import RejectEvent
from millstream.project.stream import Stream
from millstream.runtime.records import Batch
from millstream.runtime.user_events import read_batch, read_event

NOON = from_rfc3339("2013-06-01T12:00:00Z")
DEPARTED = Stream.model_validate(
    {
        "stream": "flights-departed",
        "description": "A flight left the gate.",
        "key": "tailnum",
        "time": "departed_at",
        "schema": {
            "type": "object",
            "required": ["tailnum", "departed_at"],
            "properties": {
                "tailnum": {"type": "string", "maxLength": 6},
                "departed_at": {"type": "string", "format": "date-time"},
                "delay": {"type": ["number", "null"], "minimum": -120},
            },
        },
    }
)


@dataclass
class Told:
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = NOON // 1000
    offset: int = 0
    topic: str = "flights-departed"
    partition: int = 0
    key: bytes | None = None


GOOD = b'{"tailnum":"N1","departed_at":"2013-06-01T12:00:00Z"}'
ENDED = "9999-12-31T23:59:59-01:00"
times = st.sampled_from(
    [
        "2013-06-01T12:00:00Z",
        "2013-06-01T14:04:00+02:00",
        "2013-06-01T12:06:00Z",
        "2013-06-01T12:00:00",
        "noon",
        "",
        "9999-12-31T23:59:59-01:00",
    ]
)
events = st.fixed_dictionaries(
    {"tailnum": st.sampled_from(["N1", "N12345678", "", 5, None]), "departed_at": times | st.none() | st.integers()},
    optional={
        "delay": st.one_of(st.none(), st.integers(-200, 5), st.floats(-200, 200), st.just("late")),
        "note": st.just([[{}]]),
    },
)
values = st.one_of(
    events.map(msgspec.json.encode),
    events.map(lambda event: msgspec.json.encode(event)[:-1]),
    st.sampled_from(
        [None, b"", b"null", b"[]", b"\xff", b'{"departed_at": 1e999}', b"[" * 70 + b"]" * 70, b"[" * 9_000]
    ),
    st.integers(60, 70).map(
        lambda n: b'{"tailnum":"N1","departed_at":"2013-06-01T12:00:00Z","x":' + b"[" * n + b"]" * n + b"}"
    ),
    st.binary(max_size=20),
)
headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_knownat", "ce_id", "KNOWNAT"]),
        times.map(str.encode) | st.sampled_from([b"\xff", b"2013-06-01T11:00:00.123456Z", b"9999-12-31T22:00:00Z"]),
    ),
    max_size=3,
)
records = st.lists(st.builds(Told, value=values, headers=headers), min_size=1, max_size=8)


@given(records)
@example([Told(b'{"tailnum":"N1","departed_at":"2013-06-01T12:00:00Z","x":"[[[' + b"[" * 80 + b'"}')])
def test_both_ways_say_the_same(told: list[Told]) -> None:
    for offset, record in enumerate(told):
        record.offset = offset
    good, bad = read_batch(DEPARTED, Batch("flights-departed", 0, 0, len(told) - 1, told))
    expected_good, expected_bad = [], []
    for record in told:
        try:
            expected_good.append(read_event(DEPARTED, record))
        except RejectEvent as error:
            expected_bad.append((record.offset, error.reason, error.detail))
    assert [_plain(event) for event in good] == [_plain(event) for event in expected_good]
    assert [(one.record.offset, one.error.reason, one.error.detail) for one in bad] == expected_bad


def _plain(event: Any) -> tuple[Any, ...]:
    return event.record.offset, repr(event.event), event.time, event.known_at


def test_a_good_event_keeps_its_order_time_and_known_at() -> None:
    good, bad = read_batch(
        DEPARTED,
        Batch(
            "flights-departed",
            0,
            0,
            2,
            [
                Told(b'{"tailnum":"N1","departed_at":"2013-06-01T12:00:00Z"}', offset=0),
                Told(b"{", offset=1),
                Told(
                    b'{"tailnum":"N2","departed_at":"2013-06-01T11:00:00Z"}',
                    headers=[("ce_knownat", b"2013-06-01T11:30:00Z")],
                    offset=2,
                ),
            ],
        ),
    )
    assert [(event.event["tailnum"], event.known_at) for event in good] == [("N1", NOON), ("N2", NOON - 1_800_000_000)]
    assert [one.record.offset for one in bad] == [1]


@pytest.mark.parametrize(
    ("headers", "timestamp", "says"),
    [
        ([("ce_knownat", b"9999-12-31T22:00:00Z")], NOON // 1000, "ce_knownat is more than 5 minutes ahead of"),
        ([], from_rfc3339("9999-12-31T22:00:00Z") // 1000, "Kafka's timestamp is more than 5 minutes ahead of"),
    ],
)
def test_nobody_knows_what_has_not_come(headers: list[tuple[str, bytes]], timestamp: int, says: str) -> None:
    """One such record would be the stream time of every reader, and nothing would ever be stale or on time again."""
    with pytest.raises(RejectEvent, match=says) as refused:
        read_event(DEPARTED, Told(GOOD, headers, timestamp))
    assert refused.value.reason == "too_early"
