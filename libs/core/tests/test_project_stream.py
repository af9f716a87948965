"""Streams: what a file may say, and the fast helpers that every event goes through."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from millstream.contracts.times import DAY, HOUR, from_rfc3339
from millstream.errors import RejectEvent
from millstream.project.stream import Stream

DEPARTED: dict[str, Any] = {
    "stream": "flights-departed",
    "description": "A flight left the gate.",
    "key": "tailnum",
    "id": "flight_id",
    "time": "departed_at",
    "schema": {
        "type": "object",
        "required": ["flight_id", "tailnum", "departed_at"],
        "properties": {
            "flight_id": {"type": "string"},
            "tailnum": {"type": "string"},
            "departed_at": {"type": "string", "format": "date-time"},
            "dep_delay": {"type": ["number", "null"]},
            "gate": {"$ref": "#/$defs/gate"},
            "cabin": {"enum": ["first", "economy", None]},
        },
        "$defs": {"gate": {"type": "integer"}},
    },
}
N725MQ = {"flight_id": "UA1545-2013-01-01", "tailnum": "N725MQ", "departed_at": "2013-01-01T05:17:00-05:00"}


@pytest.fixture
def departed() -> Stream:
    return Stream.model_validate(DEPARTED)


def test_a_stream_has_defaults_that_suit_most(departed: Stream) -> None:
    assert (departed.name, departed.lateness, departed.partitions, departed.retention) == (
        "flights-departed",
        HOUR,
        6,
        7 * DAY,
    )


def test_a_departure_gives_its_time_key_and_id(departed: Stream) -> None:
    assert departed.time_of(N725MQ) == from_rfc3339("2013-01-01T10:17:00Z")
    assert departed.key_of(N725MQ) == b"N725MQ"
    assert departed.id_of(N725MQ) == "UA1545-2013-01-01"


def test_a_stream_without_an_id_gives_none() -> None:
    assert Stream.model_validate(DEPARTED | {"id": None}).id_of(N725MQ) is None


@pytest.mark.parametrize("key", [7, 7.0])
def test_a_whole_number_is_one_key_however_json_wrote_it(departed: Stream, key: float) -> None:
    assert departed.key_of({"tailnum": key}) == b"7"


@pytest.mark.parametrize("key", [None, "", 7.5, True, [], {}])
def test_what_is_no_key_rejects_the_event(departed: Stream, key: object) -> None:
    with pytest.raises(
        RejectEvent, match=r"missing_field: tailnum is .*; a key or id is a text that is not empty, or a"
    ):
        departed.key_of({"tailnum": key})


@pytest.mark.parametrize(
    "time", [None, 1357035420, "soon", "2013-01-01T05:17:00", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z"]
)
def test_what_is_no_time_rejects_the_event_even_where_the_schema_lets_it_pass(departed: Stream, time: object) -> None:
    with pytest.raises(RejectEvent, match=r"invalid_time: departed_at is .*; write a time like 2013-01-31T09:30:00Z"):
        departed.time_of({"departed_at": time})


def test_the_validator_is_compiled_once_and_checks_formats(departed: Stream) -> None:
    assert departed.validator() is departed.validator()
    assert departed.validator().is_valid(N725MQ)
    assert not departed.validator().is_valid(N725MQ | {"departed_at": "yesterday"})
    assert not departed.validator().is_valid({"tailnum": "N725MQ"})


def test_a_used_stream_still_travels_to_another_process(departed: Stream) -> None:
    departed.validator()
    travelled = pickle.loads(pickle.dumps(departed))  # noqa: S301  (our own bytes)
    assert travelled == departed
    assert travelled.validator().is_valid(N725MQ)


def test_the_type_of_a_field_is_found_where_the_schema_says_it(departed: Stream) -> None:
    assert departed.types_of("dep_delay") == {"number", "null"}
    assert departed.types_of("gate") == {"integer"}
    assert departed.types_of("cabin") == {"string", "null"}
    assert departed.types_of("wings") == frozenset()


def test_a_reference_to_itself_has_no_type() -> None:
    schema = copy.deepcopy(DEPARTED["schema"])
    schema["$defs"]["gate"] = {"$ref": "#/$defs/gate"}
    assert Stream.model_validate(DEPARTED | {"schema": schema}).types_of("gate") == frozenset()


def test_a_stream_is_frozen(departed: Stream) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        departed.key = "origin"


def test_what_is_written_back_is_what_was_read(departed: Stream) -> None:
    written = departed.model_dump(mode="json")
    assert (written["lateness"], written["retention"]) == ("1h", "7d")
    assert Stream.model_validate(written) == departed
