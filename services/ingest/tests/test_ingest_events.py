"""One event over HTTP: what is accepted, and what the answer says when it is not."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import millstream_ingest
from millstream.contracts.envelope import envelope_of
from millstream.contracts.times import from_rfc3339
from millstream.runtime import http
from millstream_ingest.api import STATUS

from .conftest import NOON, Airport, departure


async def test_an_accepted_event_is_in_the_log_as_it_was_checked(airport: Airport) -> None:
    answer = await airport.send(departure())

    assert (answer.status_code, answer.json()) == (202, {"id": "2013-01-01-UA-1545-EWR", "status": "accepted"})
    [entry] = airport.log.entries
    assert (entry.topic, entry.key) == ("flights-departed", b"N14228")
    assert json.loads(entry.value) == departure()
    envelope = envelope_of(entry.headers)
    assert (envelope.id, envelope.type) == ("2013-01-01-UA-1545-EWR", "stream.flights-departed.v1")
    assert envelope.time == from_rfc3339("2013-01-01T10:17:00Z")
    assert envelope.known_at is None, "Kafka's own time is when a live event became known"
    assert airport.counted("millstream_events_accepted_total", stream="flights-departed") == 1


async def test_a_repeated_name_means_the_same_to_us_and_to_readers(airport: Airport) -> None:
    """A body that says dep_delay twice: the topic holds only the value that was checked."""
    twice = json.dumps(departure())[:-1].encode() + b', "dep_delay": 7}'

    await airport.post("flights-departed/events", twice)

    assert airport.log.entries[0].value.count(b"dep_delay") == 1
    assert json.loads(airport.log.entries[0].value)["dep_delay"] == 7


async def test_the_same_reading_sent_again_has_the_same_id(airport: Airport) -> None:
    reading = {"gauge": 7, "at": "2013-01-01T11:00:00Z"}

    first, again, other = [
        (await airport.send(event, "sensor-readings")).json()["id"]
        for event in (reading, reading, reading | {"gauge": 8})
    ]

    assert first == again != other
    assert airport.log.entries[0].key == b"7"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_json"),
        (b'{"flight_id": ', 400, "bad_json"),
        (b'{"dep_delay": NaN}', 400, "bad_json"),
        (b'{"dep_delay": -Infinity}', 400, "bad_json"),
        (b'{"dep_delay": 1e999}', 400, "bad_json"),
        (b'{"flight_id": "\\ud800"}', 400, "bad_json"),
        (b'{"flight_id": "\xff\xfe"}', 400, "invalid_utf8"),
        (b'"UA 1545"', 422, "not_an_object"),
        (b"[]", 422, "not_an_object"),
        (b"{}", 422, "schema"),
        (b'{"legs": ' + b"[" * 100 + b"]" * 100 + b"}", 422, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, 422, "too_deep"),
    ],
)
async def test_broken_bytes_are_refused_with_a_code(airport: Airport, body: bytes, status: int, code: str) -> None:
    answer = await airport.post("flights-departed/events", body)

    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert airport.log.entries == []
    assert airport.counted("millstream_events_rejected_total", stream="flights-departed", reason=code) == 1


async def test_an_array_is_told_where_arrays_go(airport: Airport) -> None:
    answer = await airport.send([departure()])  # type: ignore[arg-type]

    assert answer.json()["message"] == "an event is a JSON object; several in an array go to /v1/streams/{stream}/batch"


async def test_64_levels_are_the_deepest(airport: Airport) -> None:
    """The event is one level, its field `extra` holds the others."""

    def nested(levels: int) -> dict[str, object]:
        inner: object = 1
        for _ in range(levels - 1):
            inner = [inner]
        return departure(extra=inner)

    assert (await airport.send(nested(64))).status_code == 202
    assert (await airport.send(nested(65))).json()["error"] == "too_deep"


async def test_a_schema_violation_points_at_the_value(airport: Airport) -> None:
    answer = await airport.send(departure(legs=[{}, {"a/b~c": "x" * 500}]))

    said = answer.json()
    assert (answer.status_code, said["error"]) == (422, "schema")
    assert said["pointer"] == "/legs/1/a~1b~0c"
    assert said["expected"] == 'type: "integer"'
    assert said["got"] == f'"{"x" * 100}"…'
    assert len(said["message"]) < 310


async def test_an_event_of_tomorrow_is_too_early(airport: Airport) -> None:
    answer = await airport.send(departure(departed_at="2013-01-01T12:05:01Z"))

    assert (answer.status_code, answer.json()["error"]) == (422, "too_early")
    assert answer.json()["expected"] == "at most 2013-01-01T12:05:00Z"
    assert (await airport.send(departure(departed_at="2013-01-01T12:05:00Z"))).status_code == 202


@pytest.mark.parametrize("moment", ["2013-02-30T10:00:00Z", "2016-12-31T23:59:60Z", "0001-01-01T00:00:00+05:00"])
async def test_a_time_of_no_calendar_is_refused(airport: Airport, moment: str) -> None:
    answer = await airport.send(departure(departed_at=moment))

    assert answer.status_code == 422
    assert answer.json()["error"] in ("schema", "invalid_time")
    assert answer.json()["pointer"] == "/departed_at"


async def test_known_at_of_a_request_is_honoured_only_where_it_is_trusted(
    airport: Airport, replayed_airport: Airport
) -> None:
    refused = await airport.send(departure(), ce_knownat="2013-01-01T10:17:00Z")
    assert (refused.status_code, refused.json()["error"]) == (403, "known_at_not_trusted")
    assert "MILLSTREAM_TRUST_KNOWN_AT" in refused.json()["message"]

    assert (await replayed_airport.send(departure(), ce_knownat="2013-01-01T10:17:00Z")).status_code == 202
    assert envelope_of(replayed_airport.log.entries[0].headers).known_at == from_rfc3339("2013-01-01T10:17:00Z")
    assert from_rfc3339("2013-01-01T10:17:00Z") != NOON


async def test_a_replayed_event_is_judged_by_the_replays_clock(replayed_airport: Airport) -> None:
    """10:17 is the past at noon, but at 10:00 of the replay it is the future."""
    answer = await replayed_airport.send(departure(), ce_knownat="2013-01-01T10:00:00Z")

    assert answer.json()["error"] == "too_early"


@pytest.mark.parametrize("said", ["yesterday", "2013-01-01T10:00:00", "0001-01-01T00:00:00+05:00"])
async def test_a_known_at_that_is_no_time_is_refused(replayed_airport: Airport, said: str) -> None:
    answer = await replayed_airport.send(departure(), ce_knownat=said)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_known_at")


async def test_an_unknown_stream_names_the_known_ones(airport: Airport) -> None:
    answer = await airport.send(departure(), stream="flight-departed")

    assert answer.status_code == 404
    assert answer.json()["known"] == ["flights-departed", "sensor-readings"]
    assert airport.counted("millstream_requests_refused_total", reason="unknown_stream") == 1


async def test_what_is_not_there_is_refused_in_the_same_body(airport: Airport) -> None:
    for answer, status, code in (
        (await airport.http.get("/v1/stream"), 404, "not_found"),
        (await airport.http.get("/v1/streams/flights-departed/events"), 405, "method_not_allowed"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (status, code)
        assert set(answer.json()) == {"error", "message"}


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/json; charset=latin-1", "application/cloudevents+xml"],
)
async def test_another_content_type_is_refused(airport: Airport, kind: str) -> None:
    answer = await airport.send(departure(), content_type=kind)

    assert (answer.status_code, answer.json()["error"]) == (415, "media_type")


async def test_utf8_may_be_said(airport: Airport) -> None:
    assert (await airport.send(departure(), content_type='Application/JSON; charset="UTF-8"')).status_code == 202


async def test_a_packing_that_is_not_known_is_refused(airport: Airport) -> None:
    answer = await airport.send(departure(), content_encoding="br")

    assert (answer.status_code, answer.json()["error"]) == (415, "content_encoding")
    assert "gzip or zstd" in answer.json()["message"]


async def test_a_body_of_two_mebibytes_is_refused_before_it_is_read(airport: Airport) -> None:
    answer = await airport.post("flights-departed/events", b" " * 2 * 1024 * 1024)

    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")


async def test_a_chunked_body_is_counted_while_it_streams_in(airport: Airport) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * 64 * 1024

    answer = await airport.post("flights-departed/events", endless())

    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
    assert sent == 17, "the 17th chunk of 64 KiB passes 1 MiB; nothing is read after it"


async def test_an_event_that_kafka_would_not_take_is_refused(airport: Airport) -> None:
    answer = await airport.send(departure(remark="x" * 1_000_000))

    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


async def test_an_endless_id_is_refused(airport: Airport) -> None:
    assert (await airport.send(departure(flight_id="x" * 1025))).json()["error"] == "too_large"
    assert (await airport.send(departure(tailnum="x" * 1025))).json()["error"] == "too_large"


async def test_an_empty_key_is_no_key(airport: Airport) -> None:
    answer = await airport.send(departure(tailnum=""))

    assert (answer.status_code, answer.json()["error"]) == (422, "missing_field")


async def test_without_kafka_the_producer_knows_that_nothing_was_taken(airport: Airport) -> None:
    airport.log.away = True

    answer = await airport.send(departure())

    assert answer.status_code == 503
    assert (answer.json()["error"], answer.json()["outcome"]) == ("unavailable", "not_accepted")
    assert answer.headers["retry-after"] == "5"


async def test_a_silent_kafka_makes_the_outcome_unknown_and_a_retry_harmless(airport: Airport) -> None:
    """The record may be there: the second try writes the same id, by which readers drop one of the two."""
    airport.log.silent = True
    answer = await airport.send(departure())
    assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown")
    assert answer.headers["retry-after"] == "5"

    airport.log.silent = False
    assert (await airport.send(departure())).status_code == 202

    first, second = airport.log.entries
    assert envelope_of(first.headers).id == envelope_of(second.headers).id
    assert airport.counted("millstream_events_accepted_total", stream="flights-departed") == 1


async def test_the_producers_trace_goes_on_in_the_topic(airport: Airport) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    await airport.send(departure(flight_id="a"), traceparent=trace)
    await airport.send(departure(flight_id="b"), traceparent="00-not-a-trace")

    assert [envelope_of(entry.headers).traceparent for entry in airport.log.entries] == [trace, None]


def test_every_code_in_the_sources_is_in_the_table_and_the_other_way_round() -> None:
    """Codes are metric labels: a closed set."""
    sources = "".join(file.read_text() for file in Path(millstream_ingest.__file__).parent.rglob("*.py"))
    raised = set(re.findall(r'(?:Refusal|BadEvent)\(\s*"(\w+)"', sources)) | {"invalid_time", "missing_field"}

    assert raised | set(http.STATUS) | set(http.KNOWN_AT_STATUS) == set(STATUS)


async def test_the_streams_can_be_listed_and_looked_at(airport: Airport) -> None:
    listed = (await airport.http.get("/v1/streams")).json()["streams"]
    assert [(s["stream"], s["key"], s["id"]) for s in listed] == [
        ("flights-departed", "tailnum", "flight_id"),
        ("sensor-readings", "gauge", None),
    ]

    schema = await airport.http.get("/v1/streams/flights-departed/schema")
    assert schema.headers["content-type"] == "application/schema+json"
    assert schema.json()["required"] == ["flight_id", "tailnum", "departed_at"]
    assert (await airport.http.get("/v1/streams/nothing/schema")).status_code == 404


async def test_the_documentation_shows_examples_of_every_answer(airport: Airport) -> None:
    paths = (await airport.http.get("/openapi.json")).json()["paths"]

    batch = paths["/v1/streams/{stream}/batch"]["post"]
    kinds = {"application/json", "application/x-ndjson", "application/cloudevents-batch+json"}
    assert set(batch["requestBody"]["content"]) == kinds
    assert set(batch["responses"]) >= {"202", "207", "400", "403", "404", "413", "415", "422", "503"}
    assert batch["responses"]["207"]["content"]["application/json"]["example"]["rejected"] == 1
