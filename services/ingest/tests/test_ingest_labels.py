"""Labels at an airport's ingest: what turned out to be true becomes an event of the loop's label stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import LabelTold, decode_event
from millstream.contracts.topics import LABELS
from millstream.project import Stream
from millstream.project.loop import Loop
from millstream_ingest.adapters.memory import MemoryLog
from millstream_ingest.api import STATUS
from millstream_ingest.app import create_app
from millstream_ingest.settings import IngestSettings

from .conftest import NOON, STREAMS

VERDICTS = Stream.model_validate(
    {
        "stream": "bags-found",
        "description": "Was the bag on the belt, as was foretold?",
        "key": "flight_id",
        "id": "verdict_id",
        "time": "found_at",
        "schema": {
            "type": "object",
            "required": ["flight_id", "verdict_id", "found_at", "belt"],
            "properties": {
                "flight_id": {"type": "string"},
                "verdict_id": {"type": "string"},
                "found_at": {"type": "string", "format": "date-time"},
                "belt": {"type": "integer"},
                "lost": {"type": "boolean"},
            },
        },
    }
)


def loop(name: str, stream: str, value: str) -> Loop:
    return Loop.model_validate(
        {
            "loop": name,
            "predict": {"on": "flights-departed", "features": "v1", "inputs": ["dep_delay"]},
            "label": {"from": stream, "by": "flight_id", "value": value, "within": "24h"},
        }
    )


LOOPS = {
    one.name: one
    for one in (loop("bag-lost", "bags-found", "lost"), loop("flight-late", "flights-departed", "dep_delay >= 15"))
}


class Belt:
    """ingest with its log at hand."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        streams = STREAMS | {VERDICTS.name: VERDICTS}
        service = create_app(
            IngestSettings(instance="jfk"), streams=streams, loops=LOOPS, log=self.log, clock=lambda: NOON
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://ingest")

    async def label(self, body: Any, loop: str = "bag-lost", **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            f"/v1/loops/{loop}/labels", content=raw, headers={"content-type": "application/json"} | named
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(entry.value) for entry in self.log.entries]


@pytest.fixture
async def belt() -> AsyncIterator[Belt]:
    made = Belt()
    async with made.http:
        yield made


def lost(flight: str, value: Any = True, **more: Any) -> dict[str, Any]:
    return {"key": {"flight_id": flight, "belt": 4}, "value": value} | more


async def test_a_label_becomes_an_event_of_the_label_stream(belt: Belt) -> None:
    answer = await belt.label(lost("UA-1545"))

    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    [entry], [event] = belt.log.entries, belt.events
    assert (entry.topic, entry.key) == ("bags-found", b"UA-1545")
    assert envelope_of(entry.headers).id == event.pop("verdict_id") == answer.json()["id"]
    assert event == {"flight_id": "UA-1545", "belt": 4, "lost": True, "found_at": "2013-01-01T12:00:00Z"}


async def test_the_loop_reads_from_the_event_what_was_said(belt: Belt) -> None:
    await belt.label(lost("UA-1545", False, at="2013-01-01T11:00:00Z"))

    [event], label = belt.events, LOOPS["bag-lost"].label
    assert (label.key_of(event), label.value(event)) == ("UA-1545", False)
    assert event["found_at"] == "2013-01-01T11:00:00Z"


async def test_the_same_label_said_again_has_its_id_and_a_retry_is_not_written(belt: Belt) -> None:
    first = await belt.label(lost("UA-1545"), idempotency_key="bag-1")
    retry = await belt.label(lost("UA-1545"), idempotency_key="bag-1")
    again = await belt.label(lost("UA-1545", at="2013-01-01T11:59:00Z"))
    other = await belt.label(lost("UA-1545", False))

    assert retry.headers["idempotent-replayed"] == "true"
    assert first.json() == retry.json() == again.json()
    assert other.json()["id"] != first.json()["id"]
    assert len(belt.log.entries) == 3


async def test_of_many_labels_the_good_ones_are_taken(belt: Belt) -> None:
    answer = await belt.label([lost("UA-1"), lost("UA-2", None), lost("UA-3", "yes"), {"key": {}}, lost("UA-4")])

    said = answer.json()
    assert (answer.status_code, said["accepted"], said["rejected"]) == (207, 2, 3)
    codes = [one.get("error", {}).get("code") for one in said["results"]]
    assert codes == [None, "bad_label", "schema", "bad_label", None]
    assert [event["flight_id"] for event in belt.events] == ["UA-1", "UA-4"]


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"prediction_id": 7, "value": True}, "/prediction_id", "that of the answer"),
        ({"prediction_id": "3b70", "value": "yes"}, "/value", "which is binary, is true or false"),
        ({"prediction_id": "3b70", "value": None}, "/value", "true, false, a number or a text"),
        ({"prediction_id": "3b70", "key": {"flight_id": "a"}, "value": True}, "/key", "not by both"),
        ({"prediction_id": "3b70", "value": True, "at": "noon"}, "/told_at", ""),
        ({"key": {"flight_id": "a"}, "value": True}, "/key", "an event of bags-found also has belt; say them in key"),
        ({"key": {"belt": 4}, "value": True}, "/key", "flight_id at least"),
        ({"key": "a", "value": True}, "/key", "flight_id at least"),
        (lost("a", [1]), "/value", "true, false, a number or a text"),
        (lost("a", at=None) | {"verdict": 1}, "/verdict", "a label has no 'verdict'"),
        ({"key": {"flight_id": "a", "belt": 4, "lost": False}, "value": True}, "/key/lost", "said twice"),
        (lost("a", at=7), "/found_at", "is not of type"),
        (lost("a", at="2013-01-02T12:00:00Z"), "/found_at", "5 minutes ahead"),
        ([], "", "the batch has no event"),
        (7, "", "a label is like"),
    ],
)
async def test_what_makes_no_event_is_told_what_to_write(belt: Belt, body: Any, pointer: str, words: str) -> None:
    answer = await belt.label(body)

    said = answer.json()
    assert answer.status_code == STATUS[said["error"]] in (400, 422)
    assert (said.get("pointer", ""), words in said["message"]) == (pointer, True), said
    assert belt.log.entries == []


async def test_a_computed_label_says_which_event_to_send(belt: Belt) -> None:
    answer = await belt.label(lost("UA-1545"), loop="flight-late")

    said = answer.json()
    assert (answer.status_code, said["error"]) == (422, "computed_label")
    assert (
        "dep_delay >= 15; send the event it is computed from to /v1/streams/flights-departed/events" in said["message"]
    )
    assert said["needs"] == ["dep_delay", "departed_at", "flight_id", "tailnum"]


async def test_an_unknown_loop_names_those_there_are(belt: Belt) -> None:
    answer = await belt.label(lost("UA-1545"), loop="bags")

    assert (answer.status_code, answer.json()["known"]) == (404, ["bag-lost", "flight-late"])


async def test_the_documentation_has_the_door(belt: Belt) -> None:
    paths = (await belt.http.get("/openapi.json")).json()["paths"]

    assert "post" in paths["/v1/loops/{loop}/labels"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
KEYS = VALUES | st.fixed_dictionaries({}, optional={"flight_id": VALUES, "belt": VALUES, "found_at": VALUES})
SAID = VALUES | st.fixed_dictionaries(
    {}, optional={"key": KEYS, "prediction_id": VALUES, "value": VALUES, "at": VALUES}
)
BODIES = st.binary(max_size=50) | SAID.map(lambda label: json.dumps(label).encode())


@settings(max_examples=300, deadline=None)
@given(BODIES | st.lists(BODIES, max_size=3).map(lambda some: b"[" + b",".join(some) + b"]"))
async def test_no_body_breaks_the_door(body: bytes) -> None:
    belt = Belt()
    async with belt.http:
        answer = await belt.label(body)

    said = answer.json()
    if "results" in said:
        assert len(belt.log.entries) <= said["accepted"]
    elif answer.status_code != 202:
        assert answer.status_code == STATUS[said["error"]]
        assert belt.log.entries == []


async def test_a_label_by_prediction_id_is_an_event_of_ours(belt: Belt) -> None:
    """Also of a loop whose label is computed: here it is said."""
    first = await belt.label({"prediction_id": "3b70", "value": True}, loop="flight-late")
    again = await belt.label({"prediction_id": "3b70", "value": True, "at": "2013-01-01T11:00:00Z"}, loop="flight-late")
    mixed = await belt.label([lost("UA-1"), {"prediction_id": "3b71", "value": False, "at": "2013-01-01T11:00:00Z"}])

    assert first.json() == again.json(), "the same label has the same id, whenever it is said"
    assert mixed.status_code == 202
    told = [entry for entry in belt.log.entries if entry.topic == LABELS.name]
    assert [entry.key for entry in told] == [b"3b70", b"3b70", b"3b71"]
    envelope = envelope_of(told[2].headers)
    event = decode_event(envelope.type, told[2].value)
    assert isinstance(event, LabelTold)
    assert (event.loop, event.prediction_id, event.value, event.id) == ("bag-lost", "3b71", False, envelope.id)
