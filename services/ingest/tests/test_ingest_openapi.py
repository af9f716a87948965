"""Strangers at ingest's HTTP: what its OpenAPI document allows, what it forbids, and never a fault of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
import schemathesis.specs.openapi.schemas  # late imports in threads: CPython 3.11 parses two files at a time wrong
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import checks

from millstream_ingest.adapters import kafka_dead_letters

from .conftest import Airport

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
SEED = 6


class Opened:
    """An app that need not be started: its start would look for Kafka."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})


async def _none(self: object) -> Sequence[Any]:
    return ()


@pytest.mark.timeout(300)  # so many requests, however busy the machine
async def test_no_request_that_can_be_thought_of_makes_it_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_dead_letters.KafkaDeadLetters, "count", _none)
    app = Opened(Airport().service.app)
    tried: set[tuple[str, str, int]] = set()

    def attempt(case: Any, mode: schemathesis.GenerationMode, name: str) -> None:
        if "stream" in case.path_parameters:
            case.path_parameters["stream"] = name
        answer = case.call_and_validate(checks=CHECKS)
        tried.add((case.operation.label, mode.value, answer.status_code))

    def try_all() -> None:
        for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
            operation = found.ok()
            if not operation.path.startswith("/v1/"):
                continue  # the probes: without Kafka they say 503, which is true
            for mode in schemathesis.GenerationMode:
                names = st.sampled_from(["flights-departed", "flights-departed", "sensor-readings", "nobody"])
                work = given(operation.as_strategy(generation_mode=mode), st.just(mode), names)(attempt)
                with suppress(Unsatisfiable):  # where nothing is asked nothing can be asked wrong
                    seed(SEED)(THOROUGH(work))()

    await asyncio.to_thread(try_all)
    page = {(mode, status) for door, mode, status in tried if door == "POST /v1/streams/flights-departed/events"}
    assert ("positive", 202) in page
    assert {status for mode, status in page if mode == "negative"} & {400, 415, 422}
    assert {door for door, _, status in tried if status == 404} >= {
        "POST /v1/streams/{stream}/events",
        "POST /v1/streams/{stream}/batch",
        "GET /v1/streams/{stream}/schema",
        "POST /v1/loops/{loop}/labels",
    }
