"""What a caller who got it wrong is told: what was wrong, where, and what to write instead; in each protocol's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from millstream.runtime.http import LARGEST_BODY

Flight = Callable[..., dict[str, Any]]
PREDICT, MODELS = "/v1/loops/flight-delay/predict", "/v2/models"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", {}, 400, ["not JSON", "empty"]),
        (b'{"event": {"distance": NaN}}', {}, 400, ["byte 23", "NaN", "write null"]),
        (b'{"flight_id": "a"}', {}, 422, ["the body has no event", '{"event": {…}}']),
        (b'{"event": 1}', {}, 422, ["event is no object", '{"event": {…}}']),
        (b'{"event": {}}', {"content-type": "text/plain"}, 415, ["'text/plain'", "application/json"]),
        (b" " * (LARGEST_BODY + 1), {}, 413, [f"{LARGEST_BODY} bytes", "at most"]),
    ],
)
async def test_a_mistake_is_told_with_its_place_and_its_remedy(
    http: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int, words: list[str]
) -> None:
    answer = await http.post(PREDICT, content=body, headers=JSON | headers)
    assert answer.status_code == status, answer.text
    assert [word for word in words if word not in answer.json()["message"]] == [], answer.text


async def test_a_time_that_is_none_is_told_with_one_that_is(http: httpx.AsyncClient, flight: Flight) -> None:
    answer = await http.post(PREDICT, json={"event": flight() | {"announced_at": "noon"}})
    assert answer.status_code == 422
    [fault] = answer.json()["faults"]
    assert fault["pointer"] == "/event/announced_at"
    assert fault["message"].endswith("write a time like 2013-01-31T09:30:00Z")


@pytest.mark.parametrize("path", [f"{MODELS}/nobody/infer", f"{MODELS}/nobody/versions/1/infer"])
@pytest.mark.parametrize("body", [b"{}", b"no JSON", b'{"inputs": []}'])
async def test_a_model_that_nobody_has_is_said_before_what_is_wrong_with_the_body(
    http: httpx.AsyncClient, path: str, body: bytes
) -> None:
    answer = await http.post(path, content=body, headers=JSON)
    assert answer.status_code == 404
    assert answer.json() == {"error": "no model 'nobody'; a model is a loop of the project: flight-delay"}


async def test_inputs_that_are_left_out_are_missing(http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{MODELS}/flight-delay/infer", content=b"{}", headers=JSON)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "inputs is missing; send a list of objects, each with a name"},
    )
