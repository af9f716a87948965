"""Strangers at serving's HTTP: what its OpenAPI document allows, what it forbids, and bytes that are nothing."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
import schemathesis.specs.openapi.schemas  # late imports in threads: CPython 3.11 parses two files at a time wrong
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from prometheus_client import generate_latest
from schemathesis import checks

from millstream_serving.api import Gate
from millstream_serving.api.inference import HEADER

from .conftest import Stage, asking, flight
from .test_serving_inference import INFER, MEAN, question

THOROUGH = settings(
    max_examples=40,  # of each operation, good and bad: the whole takes some seconds
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
FITTING: dict[str, Any] = {
    "POST /v1/loops/{loop}/predict": {"event": flight(1)},
    "POST /v2/models/{loop}/infer": question(),
    "POST /v2/models/{loop}/versions/{version}/infer": question(),
}
"""Bodies that are answered: one of the document's own making is no event of this loop, and no row of its model."""
HEAD = json.dumps(
    {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": size}}
            for name, datatype, size in (("distance", "FP32", 4), ("carrier", "BYTES", 6), (MEAN, "FP64", 8))
        ]
    }
).encode()
TAIL = struct.pack("<fI2sd", 2475, 2, b"B6", 12.5)


@pytest.fixture
async def app(stage: Stage) -> FastAPI:
    app = stage.app()
    app.gate = Gate(stage.metrics, patience=30.0)
    stage.health.met("kafka")
    await stage.keeper.known.wait()
    await stage.obey(stage.package("3", lambda row: 0.25))
    return app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(app) as client:
        yield client


def operations(app: FastAPI) -> Iterator[Any]:
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        yield found.ok()


@pytest.mark.timeout(300)  # so many requests, however busy the machine
async def test_no_request_that_can_be_thought_of_makes_it_fail(app: FastAPI) -> None:
    tried: set[tuple[str, str, int]] = set()

    def attempt(case: Any, mode: schemathesis.GenerationMode, name: str, fits: bool) -> None:
        if "loop" in case.path_parameters:
            case.path_parameters["loop"] = name
        if fits and mode.is_positive and (body := FITTING.get(case.operation.label)):
            case.body, case.media_type = body, "application/json"
            case.path_parameters |= {"version": "3"} if "version" in case.path_parameters else {}
        answer = case.call()
        # Who asks for an answer within a millisecond may hear that there was none.
        if answer.status_code != 504 or "x-request-timeout-ms" not in {header.lower() for header in case.headers}:
            case.validate_response(answer, checks=CHECKS)
        tried.add((case.operation.label, mode.value, answer.status_code))

    def try_all() -> None:
        for operation in operations(app):
            for mode in schemathesis.GenerationMode:
                names = st.sampled_from(["flight-delay", "flight-delay", "nobody"])
                asked = operation.as_strategy(generation_mode=mode)
                work = given(asked, st.just(mode), names, st.booleans())(attempt)
                with suppress(Unsatisfiable):  # where nothing is asked nothing can be asked wrong
                    THOROUGH(work)()

    await asyncio.to_thread(try_all)
    infer = {(mode, status) for door, mode, status in tried if door == "POST /v2/models/{loop}/infer"}
    assert infer >= {("positive", 400), ("negative", 400)}
    assert ("GET /v2/models/{loop}", "positive", 200) in tried
    assert {(door, "positive", 200) for door in FITTING} <= tried


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_bytes_behind_a_header_make_it_fail(http: httpx.AsyncClient, data: st.DataObject) -> None:
    raw = bytearray(HEAD + TAIL)
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=6)):
        raw[place] = data.draw(st.integers(0, 255))
    body = bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    length = data.draw(st.sampled_from([str(len(HEAD)), "0", "", "-1", "9" * 400]) | st.integers(0, 400).map(str))
    answer = await http.post(INFER, content=body, headers={HEADER: length, "content-type": "application/octet-stream"})
    assert answer.status_code in (200, 400), answer.text
    assert answer.status_code == 200 or answer.json().keys() == {"error"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_json_in_the_place_of_another_makes_it_fail(http: httpx.AsyncClient, data: st.DataObject) -> None:
    """A good request, of which one value is anything."""
    body: Any = question() | {"id": "1", "parameters": {"entity": "B6"}, "outputs": [{"name": "probability"}]}
    places = [body, body["parameters"], body["outputs"][0], *body["inputs"]]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from([*place]))] = data.draw(JSON)
    try:
        content = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    answer = await http.post(INFER, content=content)
    assert answer.status_code in (200, 400), answer.text
    assert answer.status_code == 200 or answer.json().keys() == {"error"}


async def test_made_up_loops_versions_keys_and_headers_make_no_series(stage: Stage, http: httpx.AsyncClient) -> None:
    async def asked(word: str) -> None:
        event = flight(1, flight_id=word, carrier=word, origin=word)
        named = question() | {"id": word, "parameters": {"entity": word}}
        for path, body, headers in (
            ("/v1/loops/flight-delay/predict", {"event": event}, {}),
            (f"/v1/loops/{word}/predict", {"event": event}, {}),
            ("/v1/loops/flight-delay/predict", {"event": event}, {"x-request-timeout-ms": word, "user-agent": word}),
            (INFER, named, {"user-agent": word}),
            (f"/v2/models/{word}/infer", named, {}),
            (f"/v2/models/flight-delay/versions/{word}/infer", named, {}),
            (f"/{word}", {}, {}),
        ):
            assert (await http.post(path, json=body, headers=headers)).status_code in (200, 400, 404), path

    await asked("first")
    before = len(generate_latest(stage.registry).splitlines())
    for number in range(20):
        await asked(f"word{'x' * number}")
    assert len(generate_latest(stage.registry).splitlines()) == before
