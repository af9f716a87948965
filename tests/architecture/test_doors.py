"""No door of ingest writes for whom the porter does not know: one that is added later is held to it here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from millstream.errors import Refusal
from millstream.project import load_project
from millstream.runtime.service import Service
from millstream_ingest.adapters.memory import MemoryLog
from millstream_ingest.app import create_app
from millstream_ingest.domain.keyring import Keyring
from millstream_ingest.handlers import Permit, Porter
from millstream_ingest.settings import IngestSettings

FLIGHTS = load_project(Path(__file__).parents[2] / "examples" / "flights")
NAMES = {"stream": sorted(FLIGHTS.streams), "loop": sorted(FLIGHTS.loops)}
READS = {"GET", "HEAD", "OPTIONS"}


def ingest(log: MemoryLog) -> Service:
    settings = IngestSettings(auth="keys")
    return create_app(settings, streams=FLIGHTS.streams, loops=FLIGHTS.loops, log=log, keyring=Keyring())


def routes(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of all that may write, for each name that the project has."""
    yield from (door for door in app.doors if door[0] not in READS)
    for route in app.routes:
        if isinstance(route, APIRoute):
            for method in sorted(route.methods - READS):
                [(place, names)] = [(p, NAMES[p]) for p in route.param_convertors] or [("", [""])]
                yield from ((method, route.path.replace(f"{{{place}}}", name)) for name in names)


DOORS = sorted(set(routes(ingest(MemoryLog()).app)))


async def ask(app: ASGIApp, method: str, path: str) -> tuple[int, dict[str, Any]]:
    """Whoever is asked for the body was not stopped at the door."""
    told: list[Any] = []

    async def receive() -> Any:
        raise AssertionError(f"{path} reads a body before it asks whose it is")

    async def send(message: Any) -> None:
        told.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, receive, send)
    return told[0]["status"], json.loads(told[1]["body"])


def test_all_doors_are_known_here() -> None:
    streams, loops = NAMES["stream"], NAMES["loop"]
    wanted = {("POST", f"/v1/streams/{name}/{route}") for name in streams for route in ("events", "batch")}
    assert set(DOORS) == wanted | {("POST", f"/v1/loops/{name}/labels") for name in loops}


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_a_door_that_writes_asks_the_porter_first(
    method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, asked = MemoryLog(), []
    app = ingest(log).app
    stranger = await ask(app, method, path)

    async def admit(self: Porter, headers: Any, stream: str) -> Permit:
        asked.append(stream)
        raise Refusal("forbidden", "not today")

    monkeypatch.setattr(Porter, "admit", admit)
    forbidden = await ask(app, method, path)

    assert (stranger[0], stranger[1]["error"]) == (401, "unauthorized")
    assert (forbidden[0], forbidden[1]["message"]) == (403, "not today")
    [stream] = asked
    assert stream in FLIGHTS.streams
    assert log.entries == []
