"""Who may write: keys with their scopes, and everything that is no key, told in words and without a secret."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millstream.contracts.api_keys import api_key, digest_of, id_of
from millstream.contracts.events import KeyState
from millstream.errors import BadSetup
from millstream.runtime import tracing
from millstream.runtime.logs import JsonFormatter
from millstream_ingest.domain import keyring as keyring_module
from millstream_ingest.domain.keyring import Keyring
from millstream_ingest.settings import IngestSettings

from .conftest import Airport, departure, lines

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
ADA, BOB, EVE = (api_key(bytes([n]) * 6, bytes([n]) * 32) for n in (1, 2, 3))
EVENTS = "/v1/streams/flights-departed/events"


def state(key: str, *streams: str, **more: Any) -> KeyState:
    id = id_of(key) or ""
    known: dict[str, Any] = {"id": f"e-{id}", "key": id, "name": "gate", "digest": digest_of(key).hex()}
    return KeyState(**known, streams=streams, created_at=NOON, **more)


def guarded(*states: KeyState, **settings: Any) -> Airport:
    ring = Keyring()
    for one in states:
        ring.hear(one)
    return Airport(ring, auth="keys", **settings)


async def post(airport: Airport, path: str = EVENTS, **headers: str) -> httpx.Response:
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await airport.http.post(path, content=json.dumps(departure()).encode(), headers=named)


@pytest.mark.parametrize(
    "header", [{"x_api_key": ADA}, {"authorization": f"Bearer {ADA}"}, {"authorization": f"bearer  {ADA}"}]
)
async def test_a_key_opens_its_streams(header: Mapping[str, str]) -> None:
    airport = guarded(state(ADA, "flights-departed"))
    async with airport.http:
        assert (await post(airport, **header)).status_code == 202


async def test_a_key_opens_no_other_stream_and_says_which_it_does() -> None:
    airport = guarded(state(ADA, "flights-departed"), state(BOB, "*"))
    async with airport.http:
        other = await post(airport, "/v1/streams/sensor-readings/batch", x_api_key=ADA)
        every = await post(airport, x_api_key=BOB)

    assert (other.status_code, other.json()["error"]) == (403, "forbidden")
    assert other.json()["message"] == f"key:{id_of(ADA)} may not write sensor-readings; it may write: flights-departed"
    assert every.status_code == 202


WRONG = {
    "no key at all": {},
    "another scheme": {"authorization": "Basic YWRhOmFkYQ=="},
    "a secret that is wrong at its end": {"x_api_key": ADA[:-1] + "0"},
    "a key that nobody has": {"x_api_key": EVE},
    "what is no key": {"x_api_key": "hunter2"},
    "a token where none is taken": {"authorization": "Bearer a.b.c"},
    "nothing": {"x_api_key": ""},
    "two": {"x_api_key": ADA, "authorization": f"Bearer {ADA}"},
    "8 KiB": {"x_api_key": "ms_" + "0" * 9000},
    "other letters": {"x_api_key": "ms_é"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
async def test_who_shows_no_good_key_is_told_before_the_body_is_read(headers: Mapping[str, str]) -> None:
    airport = guarded(state(ADA, "*"))
    read = []

    async def receive() -> dict[str, Any]:
        read.append(1)
        raise AssertionError

    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": EVENTS, "query_string": b"", "headers": raw}
    await airport.service.app(scope, receive, send)  # type: ignore[arg-type]

    assert told[0]["status"] == 401
    assert (b"www-authenticate", b'Bearer realm="millstream"') in told[0]["headers"]
    assert json.loads(told[1]["body"])["error"] == "unauthorized"
    assert read == []
    assert airport.counted("millstream_requests_refused_total", reason="unauthorized") == 1


async def test_every_door_asks() -> None:
    airport = guarded(state(ADA, "flights-departed"))
    body, ndjson = lines(departure()), {"content-type": "application/x-ndjson"}
    async with airport.http:
        for path in (EVENTS, "/v1/streams/flights-departed/batch"):
            assert (await airport.http.post(path, content=body, headers=ndjson)).status_code == 401
        for kind in ("application/cloudevents+json", "application/cloudevents-batch+json"):
            assert (await airport.http.post(EVENTS, content=b"{}", headers={"content-type": kind})).status_code == 401
        stream = await airport.http.post(EVENTS, content=body, headers=ndjson | {"x-api-key": ADA})
        assert stream.status_code == 200
        # What events look like is documentation; what the dead letters hold is data of every stream.
        assert (await airport.http.get("/v1/streams")).status_code == 200
        assert (await airport.http.get("/v1/dead-letters")).status_code == 401
        few = await airport.http.get("/v1/dead-letters", headers={"x-api-key": ADA})
        assert (few.status_code, few.json()["error"]) == (403, "forbidden")
    assert len(airport.log.entries) == 1


async def test_the_documentation_shows_how_to_say_who_one_is_where_that_is_asked() -> None:
    for airport, schemes in ((guarded(), {"APIKeyHeader", "HTTPBearer"}), (Airport(), set())):
        async with airport.http:
            said = (await airport.http.get("/openapi.json")).json()
        assert set(said["components"].get("securitySchemes", {})) == schemes
        post = said["paths"]["/v1/streams/{stream}/events"]["post"]
        assert {name for one in post.get("security", []) for name in one} == schemes
        assert {"401", "403", "429"} <= set(post["responses"])


async def test_what_became_of_a_key_is_told_to_who_has_it_alone() -> None:
    past = NOON - timedelta(days=1)
    airport = guarded(
        state(ADA, "*", revoked_at=past), state(BOB, "*", expires_at=past), state(EVE, "*", expires_at=NOON)
    )
    async with airport.http:
        revoked, expired, just = [(await post(airport, x_api_key=key)).json() for key in (ADA, BOB, EVE)]
        guessed = (await post(airport, x_api_key=ADA[:-1] + "0")).json()

    assert revoked["message"] == f"the API key {id_of(ADA)} (gate) was revoked; ask for another one"
    assert "expired at 2012-12-31T12:00:00Z" in expired["message"]
    assert "expired" in just["message"], "good until, not until and with"
    assert guessed["message"] == "there is no such API key; look with: millstream keys list"


async def test_a_key_that_is_revoked_or_taken_away_meanwhile_opens_nothing_more() -> None:
    ring = Keyring()
    ring.hear(state(ADA, "*"))
    ring.hear(state(BOB, "*"))
    airport = Airport(ring, auth="keys")
    async with airport.http:
        assert [(await post(airport, x_api_key=key)).status_code for key in (ADA, BOB)] == [202, 202]
        ring.hear(state(ADA, "*", revoked_at=NOON))
        ring.forget(id_of(BOB) or "")
        assert [(await post(airport, x_api_key=key)).status_code for key in (ADA, BOB)] == [401, 401]


def test_secrets_are_compared_in_constant_time_whether_there_is_such_a_key_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison that a timing attack would measure is the library's, and an unknown id takes the same way."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    class Spy:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(keyring_module, "hmac", Spy)
    ring = Keyring()
    ring.hear(state(ADA, "*"))

    assert ring.find(ADA, 0).name == f"key:{id_of(ADA)}"
    for wrong in (ADA[:-1] + "0", EVE, "x"):
        with pytest.raises(Exception, match="there is no such API key"):
            ring.find(wrong, 0)
    assert compared == [(32, 32)] * 4


async def test_no_secret_is_in_logs_traces_answers_or_metrics(caplog: pytest.LogCaptureFixture) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    airport = guarded(state(ADA, "flights-departed", events_per_second=0.01), state(BOB, "*", revoked_at=NOON))
    answers = []
    with caplog.at_level(logging.DEBUG), pytest.MonkeyPatch.context() as patched:
        patched.setattr(tracing, "_on", True)
        patched.setattr(trace, "get_tracer", provider.get_tracer)
        async with airport.http:
            for path in (EVENTS, "/v1/streams/sensor-readings/events"):
                for key in (ADA, ADA, ADA, BOB, EVE, "hunter2-hunter2"):
                    answers.append((await post(airport, path, x_api_key=key)).text)
                    answers.append((await post(airport, path, authorization=f"Bearer {key}")).text)
            answers.append((await airport.http.get("/metrics")).text)

    written = "".join(JsonFormatter("ingest").format(record) for record in caplog.records)
    assert {span.name for span in spans.get_finished_spans()} == {
        f"POST {EVENTS}",
        "POST /v1/streams/sensor-readings/events",
    }
    written += "".join(answers) + "".join(span.to_json() for span in spans.get_finished_spans())
    assert f"key:{id_of(ADA)} has used up its quota" in written, "who is throttled is told, by id"
    for secret in (ADA, BOB, EVE):
        assert secret.rpartition("_")[2] not in written
        assert digest_of(secret).hex() not in written
    assert "hunter2" not in written


def test_a_key_is_recognised_by_its_shape() -> None:
    assert id_of(ADA) == "010101010101"
    assert ADA.startswith("ms_010101010101_")
    for other in (ADA.upper(), ADA[:-1], ADA + "0", ADA + "\n", "ms__", ""):
        assert id_of(other) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "MILLSTREAM_AUTH does not say who may write; set MILLSTREAM_AUTH=keys"),
        ({"host": "::"}, "MILLSTREAM_HOST=:: is open to the network"),
        ({"auth": "key"}, "write off, keys, jwt or keys,jwt"),
        ({"auth": "off,keys"}, "write off, keys, jwt or keys,jwt"),
        ({"auth": ""}, "write off, keys, jwt or keys,jwt"),
        ({"auth": "jwt"}, "needs MILLSTREAM_JWT_ISSUER"),
        ({"auth": "jwt", "jwt_issuer": "i", "jwt_audience": "a"}, "needs MILLSTREAM_JWT_JWKS"),
        (
            {"auth": "jwt", "jwt_issuer": "i", "jwt_audience": "a", "jwt_jwks": "http://issuer.example/jwks"},
            "write an address like https://",
        ),
        (
            {
                "auth": "jwt",
                "jwt_issuer": "i",
                "jwt_audience": "a",
                "jwt_jwks": "https://i/j",
                "jwt_algorithms": "HS256",
            },
            "MILLSTREAM_JWT_ALGORITHMS has 'HS256'",
        ),
        (
            {
                "auth": "jwt",
                "jwt_issuer": "i",
                "jwt_audience": "a",
                "jwt_jwks": "https://i/j",
                "jwt_algorithms": "none",
            },
            "MILLSTREAM_JWT_ALGORITHMS has 'none'",
        ),
    ],
)
def test_a_setup_that_would_let_strangers_in_by_mistake_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSetup, match=said):
        Airport(**settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
async def test_on_loopback_nobody_is_asked_unless_told(host: str) -> None:
    airport = Airport(host=host)
    async with airport.http:
        assert (await post(airport)).status_code == 202


async def test_off_has_to_be_said_where_the_network_can_reach_it_and_is_said_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    airport = Airport(host="0.0.0.0", auth="off")
    for _, work in airport.service._loops:
        if "anybody" in _:
            await work()

    assert "anybody who reaches it may write every stream" in caplog.text
    async with airport.http:
        assert (await post(airport)).status_code == 202


async def test_until_the_keys_are_read_nobody_comes_in() -> None:
    airport = Airport(auth="keys")
    async with airport.http:
        early = await post(airport, x_api_key=ADA)
        missing = (await airport.http.get("/readyz")).json()["missing"]

    assert (early.status_code, early.json()["error"], early.headers["retry-after"]) == (503, "unavailable", "5")
    assert "millstream topics" in missing["API keys"]


def test_rates_are_read_as_people_write_them() -> None:
    found = IngestSettings(quota_events="1000/s", quota_bytes="5MB/s")  # type: ignore[arg-type]
    assert (found.quota_events, found.quota_bytes) == (1000.0, 5_000_000.0)
    assert IngestSettings(quota_events="90/min").quota_events == 1.5  # type: ignore[arg-type]
    for wrong in ("1000", "5 apples/s", "0/s", "-1/s", "1e3/s"):
        with pytest.raises(ValueError, match="is no rate; write it like 1000/s or 5MB/s"):
            IngestSettings(quota_events=wrong)  # type: ignore[arg-type]
