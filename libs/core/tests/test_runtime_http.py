"""What all services answer alike: a harbour office with one door that reads JSON, one that leaves it to the framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from millstream.contracts.json_text import DEEPEST
from millstream.errors import DeliveryUnknown, Refusal
from millstream.runtime import http
from millstream.runtime.http import LARGEST_BODY, STATUS, JsonBody, http_app

from .runtime_kit import service


class Berth(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ship: str = Field(min_length=1)
    cargo: list[Any] = []


BERTH = JsonBody(Berth, example={"ship": "Ada", "cargo": ["rye"]}, refusals={404: "No such pier"})
SHIP = b'{"ship": "Ada"}'


@pytest.fixture
async def office() -> AsyncIterator[httpx.AsyncClient]:
    app = http_app(title="harbour")

    @app.post("/berths", **BERTH.docs)
    async def berth(request: Request) -> dict[str, str]:
        return {"ship": (await BERTH.read(request)).ship}

    @app.post("/framework")
    async def framework(berth: Berth, pier: int = 1) -> dict[str, str]:
        return {"ship": berth.ship}

    @app.get("/fog")
    async def fog() -> None:
        raise DeliveryUnknown("the pilot did not answer within 15 s")

    @app.get("/leak")
    async def leak() -> None:
        raise ZeroDivisionError("the password is mellon")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://harbour") as client:
        yield client


async def send(office: httpx.AsyncClient, body: Any, path: str = "/berths", **headers: str) -> httpx.Response:
    named = {"content_type": "application/json"} | headers
    return await office.post(path, content=body, headers={n.replace("_", "-"): v for n, v in named.items()})


def refusal_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which has a sentence too, and nothing of the framework's own."""
    said = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert said["message"]
    assert "detail" not in said
    return answer.status_code, said["error"]


async def test_what_fits_comes_in(office: httpx.AsyncClient) -> None:
    assert (await send(office, SHIP)).json() == {"ship": "Ada"}
    assert (await send(office, SHIP, content_type='Application/JSON; charset="UTF-8"')).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"),
        (b'{"ship": ', "bad_json"),
        (b'{"ship": NaN}', "bad_json"),
        (b'{"cargo": [1e999]}', "bad_json"),
        (b'{"ship": "\\ud800"}', "bad_json"),
        (b'{"ship": "\xff"}', "invalid_utf8"),
        (b'{"cargo": ' + b"[" * 100 + b"]" * 100 + b"}", "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b"[]", "bad_body"),
        (b"null", "bad_body"),
        (b"{}", "bad_body"),
        (b'{"ship": 7}', "bad_body"),
        (b'{"ship": ""}', "bad_body"),
        (b'{"ship": "Ada", "flag": "pt"}', "bad_body"),
        (b" " * (LARGEST_BODY + 1), "body_too_large"),
    ],
    ids=lambda value: value[:20],
)
async def test_a_body_that_does_not_fit_is_refused_by_the_table(
    office: httpx.AsyncClient, body: bytes, code: str
) -> None:
    assert refusal_of(await send(office, body)) == (STATUS[code], code)


async def test_a_fault_is_named_with_its_place_and_what_to_send(office: httpx.AsyncClient) -> None:
    said = (await send(office, b'{"ship": 7, "a/b~c": 1}')).json()

    assert said == {
        "error": "bad_body",
        "message": "/ship: Input should be a valid string; /a~1b~0c: Extra inputs are not permitted; "
        'send it like {"ship":"Ada","cargo":["rye"]}',
        "faults": [
            {"pointer": "/ship", "message": "Input should be a valid string"},
            {"pointer": "/a~1b~0c", "message": "Extra inputs are not permitted"},
        ],
    }


async def test_a_thousand_faults_are_not_all_told(office: httpx.AsyncClient) -> None:
    answer = await send(office, b"{" + b",".join(b'"%d": 1' % n for n in range(1000)) + b"}")

    assert len(answer.json()["faults"]) == http.MOST_FAULTS
    assert len(answer.content) < 10_000


async def test_64_levels_are_the_deepest(office: httpx.AsyncClient) -> None:
    """The body is one level, its field `cargo` holds the others."""

    def nested(levels: int) -> bytes:
        return b'{"ship": "Ada", "cargo": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert (await send(office, nested(DEEPEST))).status_code == 200
    assert refusal_of(await send(office, nested(DEEPEST + 1))) == (422, "too_deep")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"])
async def test_only_json_is_read(office: httpx.AsyncClient, kind: str) -> None:
    answer = await send(office, SHIP, content_type=kind)

    assert refusal_of(answer) == (415, "media_type")
    assert "send application/json" in answer.json()["message"]


async def test_a_compressed_body_is_not_unpacked(office: httpx.AsyncClient) -> None:
    assert refusal_of(await send(office, SHIP, content_encoding="gzip")) == (415, "content_encoding")


async def test_a_body_that_does_not_say_its_size_is_counted_as_it_comes(office: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * 64 * 1024

    assert refusal_of(await send(office, endless())) == (413, "body_too_large")
    assert sent == 17, "the 17th chunk of 64 KiB passes 1 MiB; nothing is read after it"


async def test_a_body_that_trickles_is_given_up(office: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.01)

    async def trickle() -> AsyncIterator[bytes]:
        yield b'{"ship":'
        await asyncio.Event().wait()

    assert refusal_of(await send(office, trickle())) == (408, "body_timeout")


async def test_a_client_that_leaves_is_no_bug() -> None:
    """Nobody hears the answer, but the log must not cry either."""

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(Refusal, match="the client left") as refused:
        await BERTH.read(Request(scope, gone))
    assert refused.value.code == "client_gone"


async def test_a_path_that_nobody_answers_is_refused_like_anything_else(office: httpx.AsyncClient) -> None:
    answer = await office.get("/bearths")

    assert refusal_of(answer) == (404, "not_found")
    assert "/bearths" in answer.json()["message"]


async def test_another_method_is_refused_with_those_that_are_taken(office: httpx.AsyncClient) -> None:
    answer = await office.get("/berths")

    assert refusal_of(answer) == (405, "method_not_allowed")
    assert answer.json()["message"] == "/berths does not take GET, but POST"
    assert answer.headers["allow"] == "POST"


async def test_a_service_is_such_an_office() -> None:
    transport = httpx.ASGITransport(service("127.0.0.1:1").app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert refusal_of(await client.get("/livezz")) == (404, "not_found")
        assert refusal_of(await client.post("/livez")) == (405, "method_not_allowed")
        assert (await client.get("/readyz")).json()["missing"]["kafka"]
        probe = (await client.get("/openapi.json")).json()["paths"]["/readyz"]["get"]
    assert "`missing`" in probe["responses"]["503"]["description"]


async def test_a_bug_is_told_without_its_insides(office: httpx.AsyncClient) -> None:
    answer = await office.get("/leak")

    assert refusal_of(answer) == (500, "internal")
    assert "mellon" not in answer.text
    assert "ZeroDivision" not in answer.text


async def test_what_is_away_for_the_moment_may_be_asked_again(office: httpx.AsyncClient) -> None:
    answer = await office.get("/fog")

    assert refusal_of(answer) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["message"] == "the pilot did not answer within 15 s"


async def test_what_the_framework_reads_is_refused_in_our_words_too(office: httpx.AsyncClient) -> None:
    answer = await send(office, SHIP, "/framework?pier=north")
    assert refusal_of(answer) == (422, "bad_request")
    assert answer.json()["faults"][0]["pointer"] == "/query/pier"

    assert refusal_of(await send(office, b"{}", "/framework")) == (422, "bad_request")
    assert refusal_of(await send(office, b"{", "/framework")) == (400, "bad_json")
    assert refusal_of(await send(office, b'{"ship": "\xff"}', "/framework")) == (400, "bad_request")


async def test_the_documentation_knows_the_body_and_every_refusal(office: httpx.AsyncClient) -> None:
    said = (await office.get("/openapi.json")).json()

    berth = said["paths"]["/berths"]["post"]
    content = berth["requestBody"]["content"]["application/json"]
    assert content["schema"]["required"] == ["ship"]
    assert (await office.post("/berths", json=content["example"])).status_code == 200
    assert set(berth["responses"]) == {"200", "404", "default"} | {str(status) for status in STATUS.values()}
    assert berth["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/Refused")
    assert "HTTPValidationError" not in said["components"]["schemas"]
