"""What a producer who got it wrong is told: what was wrong, where, and what to write instead."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from millstream.testing.sockets import said, served, status_of

from .conftest import Airport, departure

JSON, LINES = "application/json", "application/x-ndjson"
CLOUD = "application/cloudevents+json"
LATER = "2013-01-02T10:17:00Z"


def good(**fields: Any) -> bytes:
    return json.dumps(departure(**fields)).encode()


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", {}, 400, ["not JSON", "empty"]),
        (b'{"flight_id": ', {}, 400, ["ends before it is whole"]),
        (b"{'flight_id': 'a'}", {}, 400, ["byte 1", "'flight_id'", "double quotes"]),
        (b'{"flight_id": "a",}', {}, 400, ["trailing comma", "byte 18"]),
        (b'{"dep_delay": NaN}', {}, 400, ["byte 14", "NaN", "write null"]),
        (b'{"dep_delay": True}', {}, 400, ["True", "true and false"]),
        (b'{"dep_delay": 1e999}', {}, 400, ["larger than any float"]),
        (b'{"flight_id": "\xe9"}', {}, 400, ["not UTF-8", "0xe9"]),
        (b"[" * 100 + b"]" * 100, {}, 422, ["64 levels"]),
        (b"[]", {}, 422, ["an event is a JSON object", "/batch"]),
        (good(dep_delay="two"), {}, 422, ["/dep_delay", '"two"', "number"]),
        (good(departed_at="yesterday"), {}, 422, ["/departed_at", "yesterday", "like 2013-01-31T09:30:00Z"]),
        (good(departed_at="2013-01-01T10:17:00"), {}, 422, ["/departed_at", "like 2013-01-31T09:30:00Z"]),
        (good(departed_at=LATER), {}, 422, ["/departed_at", "5 minutes ahead", "at most 2013-01-01T12:05:00Z"]),
        (good(flight_id=""), {}, 422, ["/flight_id", "not empty"]),
        (good(tailnum=""), {}, 422, ["/tailnum", "not empty"]),
        (b'{"flight_id": "a"}', {}, 422, ["tailnum", "required"]),
        (b" " * (2**20 + 1), {}, 413, ["1048576 bytes", LINES, "any length"]),
        (good(), {"content_encoding": "gzip"}, 400, ["no gzip", "or leave that header out"]),
        (good(), {"content_encoding": "br"}, 415, ["'br'", "gzip or zstd"]),
        (gzip.compress(b" " * 10**7), {"content_encoding": "gzip"}, 413, ["1048576 bytes", "any length"]),
        (good(), {"content_type": "text/xml"}, 415, ["text/xml", JSON, LINES]),
        (good(), {"idempotency_key": "a b"}, 400, ["Idempotency-Key", "1 to 255", "UUID"]),
        (good(), {"ce_knownat": LATER}, 403, ["ce-knownat", "MILLSTREAM_TRUST_KNOWN_AT", "leave it out"]),
        (good(), {"ce_specversion": "1.0"}, 422, ["ce-id", "1 to 1024 bytes"]),
        (good(), {"content_type": CLOUD}, 422, ["/specversion"]),
    ],
)
async def test_a_mistake_is_told_with_its_place_and_its_remedy(
    airport: Airport, body: bytes, headers: dict[str, str], status: int, words: list[str]
) -> None:
    answer = await airport.post("flights-departed/events", body, **headers)

    assert answer.status_code == status, answer.text
    told = " ".join(str(value) for value in answer.json().values())
    assert [word for word in words if word not in told] == [], told
    assert "None" not in told
    assert "b'" not in told


async def test_the_streams_that_there_are_are_named(airport: Airport) -> None:
    answer = await airport.post("flights-depart/events", good())
    assert answer.json()["known"] == ["flights-departed", "sensor-readings"]
    assert "flights-departed" in answer.json()["message"]


async def test_an_empty_batch_and_one_that_is_no_array(airport: Airport) -> None:
    assert "send one at least" in (await airport.batch(b"[]", JSON)).json()["message"]
    assert "/events" in (await airport.batch(good(), JSON)).json()["message"]


@pytest.mark.parametrize("raw", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"])
async def test_what_is_no_http_is_refused_in_json_too(airport: Airport, raw: bytes) -> None:
    async with served(airport.service.app) as address:
        answer = await said(address, raw)
    assert status_of(answer) == 400
    body = json.loads(answer[answer.index(b"{") :])
    assert body["error"] == "bad_http"
    assert "first line" in body["message"]


async def test_requests_that_come_before_the_answer_are_answered_in_order(airport: Airport) -> None:
    head = b"POST /v1/streams/%b/events HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    first = head % (b"flights-departed", len(good())) + b"\r\n" + good()
    second = head % (b"nobody", 2) + b"connection: close\r\n\r\n{}"
    async with served(airport.service.app) as address:
        answers = await said(address, first + second, whole=True)
    assert [one.split(b" ")[1] for one in answers.split(b"HTTP/1.1")[1:]] == [b"202", b"404"]
