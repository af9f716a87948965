"""Tokens of another system: what a forger tries, and an issuer whose keys change, hang or are away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from millstream.errors import Refusal
from millstream_ingest.adapters import jwks as jwks_module
from millstream_ingest.adapters.jwks import Jwks
from millstream_ingest.adapters.jwt_tokens import JwtTokens
from millstream_ingest.domain.producer import producer_of

from .conftest import Airport, departure

ISSUER, AUDIENCE = "https://tower.example", "millstream"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def public(key: Any, kid: str, **more: str) -> dict[str, Any]:
    kind = (
        RSAAlgorithm
        if isinstance(key, rsa.RSAPrivateKey)
        else ECAlgorithm
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else OKPAlgorithm
    )
    found: dict[str, Any] = kind.to_jwk(key.public_key(), as_dict=True)  # type: ignore[attr-defined]
    return found | {"kid": kid} | more


class Issuer:
    """Publishes its keys over HTTP, as many requests as are made."""

    def __init__(self) -> None:
        self.keys: list[Any] = [public(RSA, "rsa"), public(CURVE, "curve"), public(EDWARDS, "edwards")]
        self.asked = 0
        self.hung = 0
        """Requests that it leaves without an answer now."""
        self.answer: bytes | None = None
        self.status = 200
        self.hang = threading.Event()
        self.hang.set()
        issuer = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.hung += 1
                issuer.hang.wait(60)
                issuer.hung -= 1
                body = issuer.answer if issuer.answer is not None else json.dumps({"keys": issuer.keys}).encode()
                self.send_response(issuer.status)
                self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
                self.end_headers()
                with suppress(OSError):  # nobody waited for it
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hang.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def _on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that come after some seconds are keys; and no test takes so long that they are read again without being asked."""
    monkeypatch.setattr(jwks_module, "WITHIN", 25.0)
    monkeypatch.setattr(jwks_module, "AGAIN", 300.0)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


@asynccontextmanager
async def guarded(issuer: Issuer, algorithms: str = "RS256,ES256,EdDSA", **more: Any) -> AsyncIterator[Airport]:
    settings = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": issuer.url, "jwt_algorithms": algorithms}
    airport = Airport(**({"auth": "jwt"} | settings | more))
    reading = [asyncio.create_task(work()) for what, work in airport.service._loops if "issuer" in what]
    try:
        async with airport.http:
            async with asyncio.timeout(30):
                while "the issuer's keys" in airport.service.health.not_ready():  # noqa: ASYNC110 - another task's state
                    await asyncio.sleep(0.01)
            yield airport
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for work in airport.service._after:
            await work()


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "gates", "exp": now + 600, "streams": ["flights-departed"]} | more


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **more: Any) -> str:
    said = {name: value for name, value in claims(**more).items() if value is not None}
    return jwt.encode(said, key, algorithm, headers={} if kid is None else {"kid": kid})


def by_hand(head: dict[str, Any], body: dict[str, Any], secret: bytes | None = None) -> str:
    """What no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, body)]
    signed = b".".join(parts)
    signature = b"" if secret is None else hmac.new(secret, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


async def send(airport: Airport, text: str) -> httpx.Response:
    return await airport.send(departure(), authorization=f"Bearer {text}".encode("latin-1"))  # type: ignore[arg-type]


async def test_tokens_of_every_pinned_kind_open_what_they_name(issuer: Issuer) -> None:
    async with guarded(issuer) as airport:
        for text in (token(), token(CURVE, "ES256", "curve"), token(EDWARDS, "EdDSA", "edwards")):
            assert (await send(airport, text)).status_code == 202
        scoped = token(streams=None, scope="openid write:flights-departed")
        assert (await send(airport, scoped)).status_code == 202
        other = await send(airport, token(streams="sensor-readings"))
        nothing = await send(airport, token(streams=None))

    assert (other.status_code, other.json()["error"]) == (403, "forbidden")
    assert nothing.json()["message"].endswith("it may write: nothing")
    assert issuer.asked == 1


PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
FORGED = {
    "alg none": (lambda: by_hand({"alg": "none", "kid": "rsa"}, claims()), "not signed by an algorithm"),
    "alg None": (lambda: by_hand({"alg": "NonE", "kid": "rsa"}, claims()), "not signed by an algorithm"),
    "alg a number": (lambda: by_hand({"alg": 7, "kid": "rsa"}, claims()), "cannot be read|not signed by"),
    "no alg": (lambda: by_hand({"kid": "rsa"}, claims()), "not signed by an algorithm|cannot be read"),
    "HS256 by the public key": (
        lambda: by_hand({"alg": "HS256", "kid": "rsa"}, claims(), PEM),
        "not signed by an algorithm",
    ),
    "RS256 that is an HMAC": (lambda: by_hand({"alg": "RS256", "kid": "rsa"}, claims(), PEM), "signature is wrong"),
    "another algorithm of the key's kind": (lambda: token(algorithm="PS256"), "not signed by an algorithm"),
    "the curve's key under RSA's name": (lambda: token(CURVE, "ES256", "rsa"), "has no such key"),
    "another key": (lambda: token(OTHER), "signature is wrong"),
    "a key of its own in the header": (
        lambda: jwt.encode(claims(), OTHER, "RS256", headers={"kid": "mine", "jwk": public(OTHER, "mine")}),
        "has no such key",
    ),
    "another audience": (lambda: token(aud="features"), "another audience"),
    "no audience": (lambda: token(aud=None), "it has no aud|another audience"),
    "another issuer": (lambda: token(iss="https://tower.example.evil"), "another issuer"),
    "expired": (lambda: token(exp=int(time.time()) - 60), "it has expired"),
    "without an end": (lambda: token(exp=None), "it has no exp"),
    "not yet": (lambda: token(nbf=int(time.time()) + 600), "not valid yet"),
    "nobody's": (lambda: token(sub=None), "it has no sub"),
    "nobody's name": (lambda: token(sub=""), "sub is no name"),
    "a name of a megabyte, nearly": (lambda: token(sub="x" * 1000), "sub is no name"),
    "oversized": (lambda: token(more="x" * 9000), "more than the 8192"),
    "cut off": (lambda: token()[:-4], "signature is wrong|cannot be read"),
    "no base64": (lambda: "é.è.à", "cannot be read"),
    "nested": (lambda: base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=") + ".e30.AA", "cannot be read"),
    "critical extensions": (
        lambda: jwt.encode(claims(), RSA, "RS256", headers={"kid": "rsa", "crit": ["b64"], "b64": False}),
        "cannot be read|signature",
    ),
}


@pytest.mark.parametrize(("forge", "said"), FORGED.values(), ids=FORGED)
async def test_no_forged_token_opens_anything(issuer: Issuer, forge: Any, said: str) -> None:
    async with guarded(issuer) as airport:
        for _ in range(2):  # a failure is not remembered as something else
            refused = await send(airport, forge())
            assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized"), refused.text
            assert re.search(said, refused.json()["message"]), refused.text
    assert airport.log.entries == []


async def test_clocks_may_differ_by_a_little(issuer: Issuer) -> None:
    async with guarded(issuer) as airport:
        assert (await send(airport, token(exp=int(time.time()) - 10))).status_code == 202
        assert (await send(airport, token(nbf=int(time.time()) + 10))).status_code == 202


async def test_a_verified_token_is_remembered_until_it_expires_and_not_longer(issuer: Issuer) -> None:
    now = time.time()
    jwks = Jwks(issuer.url, ["RS256"], _metrics())
    tokens = JwtTokens(jwks, issuer=ISSUER, audience=AUDIENCE, algorithms=["RS256"], clock=lambda: round(now * 1e6))
    assert await jwks._refresh()
    text = token(exp=int(now) + 2)
    assert (await tokens.producer(text)).name == "jwt:gates"
    looked = jwks.find
    jwks.find = None  # type: ignore[assignment, method-assign]
    assert (await tokens.producer(text)).name == "jwt:gates", "without asking for a key"
    jwks.find = looked  # type: ignore[method-assign]
    now += 3600
    # Its time is up by our clock, so the library looks again (by its own clock it is still good here).
    assert (await tokens.producer(text)).name == "jwt:gates"
    await jwks.close()


async def test_a_new_key_is_found_at_once_and_one_that_is_gone_opens_nothing(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(issuer) as airport:
        old = token()
        assert (await send(airport, old)).status_code == 202
        issuer.keys = [public(OTHER, "new")]
        early = await send(airport, token(OTHER, kid="new"))
        assert early.status_code == 401, "a reading was a moment ago"
        monkeypatch.setattr(jwks_module, "AGAIN", 0.0)
        assert (await send(airport, token(OTHER, kid="new"))).status_code == 202
        gone = await send(airport, old)

    assert (gone.status_code, gone.json()["message"]) == (401, "the token is not good: its issuer has no such key")


async def test_a_key_that_is_taken_back_closes_by_itself(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are read again from time to time: no token has to name one that is not known."""
    monkeypatch.setattr(jwks_module, "AGAIN", 0.0)
    monkeypatch.setattr(jwks_module, "FRESH", 0.05)
    async with guarded(issuer) as airport:
        taken = token()
        assert (await send(airport, taken)).status_code == 202
        issuer.keys = [public(CURVE, "curve")]
        asked = issuer.asked
        async with asyncio.timeout(30):
            while issuer.asked < asked + 3:  # noqa: ASYNC110 - the issuer's thread; one of them has begun before, maybe
                await asyncio.sleep(0.01)
        monkeypatch.setattr(jwks_module, "AGAIN", 300.0)
        gone = await send(airport, taken)
        assert (await send(airport, token(CURVE, "ES256", "curve"))).status_code == 202
    assert (gone.status_code, gone.json()["message"]) == (401, "the token is not good: its issuer has no such key")


async def test_a_flood_of_keys_that_nobody_knows_asks_the_issuer_once(issuer: Issuer) -> None:
    async with guarded(issuer) as airport:
        flood = await asyncio.gather(*[send(airport, token(OTHER, kid=f"k{n}")) for n in range(100)])
        assert {answer.status_code for answer in flood} == {401}
        assert issuer.asked == 1
        assert (await send(airport, token())).status_code == 202


async def test_an_issuer_that_hangs_holds_up_nobody_whose_key_is_known(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(issuer) as airport:
        monkeypatch.setattr(jwks_module, "AGAIN", 0.0)
        issuer.hang.clear()
        waiting = [asyncio.create_task(send(airport, token(OTHER, kid=f"k{n}"))) for n in range(3)]
        async with asyncio.timeout(20):
            while issuer.asked < 2:  # noqa: ASYNC110 - the issuer's thread
                await asyncio.sleep(0.01)
        assert (await send(airport, token())).status_code == 202
        assert not any(task.done() for task in waiting), "these wait for the issuer"
        monkeypatch.setattr(jwks_module, "AGAIN", 300.0)
        issuer.hang.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [401] * 3


async def test_an_issuer_that_hangs_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(issuer) as airport:
        monkeypatch.setattr(jwks_module, "AGAIN", 0.0)
        monkeypatch.setattr(jwks_module, "WITHIN", 0.3)
        issuer.hang.clear()
        assert (await send(airport, token(OTHER, kid="k"))).status_code == 401
        assert issuer.hung == 1, "it still hangs"


BAD_ANSWERS = {
    "no JSON": b"<html>",
    "no keys": b'{"keys": []}',
    "an HMAC secret": json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"}]}).encode(),
    "for encryption": json.dumps({"keys": [public(RSA, "rsa", use="enc")]}).encode(),
    "of other algorithms": json.dumps({"keys": [public(RSA, "rsa", alg="RSA-OAEP")]}).encode(),
    "too many": json.dumps({"keys": [public(RSA, str(n)) for n in range(101)]}).encode(),
    "a megabyte": b" " * 1_000_000,
    "nonsense": b'{"keys": [1, null, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": 1}]}',
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_keys_that_cannot_be_read_are_no_keys(issuer: Issuer, answer: bytes) -> None:
    issuer.answer = answer
    jwks = Jwks(issuer.url, ["RS256"], _metrics())
    assert not await jwks._refresh()
    assert not jwks.read.is_set()
    await jwks.close()


async def test_an_issuer_that_sends_elsewhere_is_not_followed(issuer: Issuer) -> None:
    issuer.status = 302
    jwks = Jwks(issuer.url, ["RS256"], _metrics())
    assert not await jwks._refresh()
    assert issuer.asked == 1
    await jwks.close()


async def test_before_the_first_reading_and_a_day_after_the_last_nobody_comes_in(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(issuer) as airport:
        seen = token()
        assert (await send(airport, seen)).status_code == 202
        monkeypatch.setattr(jwks_module, "STALE", 0.0)
        stale = await send(airport, token(sub="another"))
        assert (await send(airport, seen)).status_code == 503, "one that was seen before is no better"
    assert (stale.status_code, stale.json()["error"]) == (503, "unavailable")
    assert "cannot be read" in stale.json()["message"]


async def test_keys_and_tokens_are_taken_side_by_side(issuer: Issuer) -> None:
    async with guarded(issuer, auth="keys,jwt") as airport:
        assert (await send(airport, token())).status_code == 202
        early = await send(airport, "ms_not-read-yet")
    assert early.json()["message"] == "the API keys are not read yet; nothing was taken"


@pytest.mark.parametrize(
    ("said", "streams"),
    [
        ({"streams": ["a", 7, "b"]}, {"a", "b"}),
        ({"streams": "a b"}, {"a", "b"}),
        ({"scope": "write:a read:b write:*"}, {"a", "*"}),
        ({"scope": ["write:a"]}, {"a"}),
        ({"streams": {"a": 1}, "scope": 7}, set()),
    ],
)
def test_scopes_are_read_as_issuers_write_them(said: dict[str, Any], streams: set[str]) -> None:
    assert producer_of({"sub": "gates"} | said).streams == streams


def test_a_subject_that_is_no_name_is_refused() -> None:
    for sub in (7, "", None, "x" * 257, "half \ud83d", "two\nlines"):
        with pytest.raises(Refusal, match="is no name"):
            producer_of({"sub": sub})


def _metrics() -> Any:
    from prometheus_client import CollectorRegistry

    from millstream_ingest.metrics import IngestMetrics

    return IngestMetrics(CollectorRegistry())
