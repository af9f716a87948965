"""The public keys of an issuer (JWKS, RFC 7517), read again and again, and at once when a token names one that is not known."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import jwt
import msgspec

from millstream.errors import BadSetup, RetryLater
from millstream_ingest.metrics import IngestMetrics

log = logging.getLogger(__name__)

FRESH = 300.0
"""Seconds between two readings: how long a key that its issuer took back still opens something here."""
AGAIN = 10.0
"""Seconds between two readings at least, however many tokens name keys that nobody knows; and after one that failed."""
STALE = 24 * 3600.0
"""Seconds after which keys that could not be read again open nothing: somebody may keep the issuer's word from us."""
WITHIN = 3.0
"""Seconds for a reading. Requests with a new key wait for it."""
MOST_WAITING = 64
"""Requests that wait for one at once; the next are told that the key is unknown."""
LARGEST = 256 * 1024
"""Bytes of the answer; a hundred RSA keys with their certificates have so many."""
MOST_KEYS = 100

Keys = Mapping[tuple[str, str], jwt.PyJWK]
"""By (kid, algorithm); a key without an id has the id \"\"."""


class Jwks:
    """`run` reads; `find` looks. `algorithms`: those that are allowed."""

    def __init__(self, url: str, algorithms: Sequence[str], metrics: IngestMetrics) -> None:
        address = httpx.URL(url)
        if address.scheme != "https" and not (address.scheme == "http" and _loopback(address.host)):
            raise BadSetup(f"MILLSTREAM_JWT_JWKS={url!r}; write an address like https://issuer/.well-known/jwks.json")
        self._url = url
        self._algorithms = algorithms
        self._metrics = metrics
        self._http = httpx.AsyncClient(timeout=WITHIN, follow_redirects=False)
        self._reading = asyncio.Lock()
        self._waiting = 0
        self._tried = -AGAIN
        self._read_at = 0.0
        self._keys: Keys = {}
        self.read = asyncio.Event()
        """Set once there are keys."""
        self.generation = 0
        """Grows when the keys are others than before."""

    def known(self) -> None:
        """Raises RetryLater without a reading that is fresh enough."""
        if not self.read.is_set() or time.monotonic() - self._read_at > STALE:
            raise RetryLater("the issuer's keys cannot be read, so no token can be verified; the log says why")

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """The key; None where the issuer has none of that name. `known` has been asked."""
        if (key := self._look(kid, algorithm)) is None and self._waiting < MOST_WAITING:
            self._waiting += 1
            try:
                await self._refresh()
            finally:
                self._waiting -= 1
            key = self._look(kid, algorithm)
        return key

    async def run(self) -> None:
        """Read, until cancelled."""
        while True:
            good = await self._refresh()
            await asyncio.sleep(FRESH if good else AGAIN)

    async def close(self) -> None:
        await self._http.aclose()

    def _look(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        if kid:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _refresh(self) -> bool:
        """Whether the keys are as fresh as may be."""
        async with self._reading:
            if time.monotonic() - self._tried < AGAIN:
                return self._read_at >= self._tried  # a reading that failed is not as fresh as may be
            self._tried = time.monotonic()
            try:
                async with asyncio.timeout(WITHIN):
                    keys = _keys(await self._get(), self._algorithms)
            except (httpx.HTTPError, TimeoutError, ValueError) as error:
                self._metrics.jwks_failed.inc()
                log.warning("the keys at %s cannot be read: %s", self._url, error or "timeout")
                return False
            if {name: key._jwk_data for name, key in keys.items()} != {n: k._jwk_data for n, k in self._keys.items()}:
                self.generation += 1
                log.info("the issuer has %d keys", len(keys))
            self._keys, self._read_at = keys, time.monotonic()
            self.read.set()
            return True

    async def _get(self) -> bytes:
        async with self._http.stream("GET", self._url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != 200:
                raise ValueError(f"HTTP status {answer.status_code}; redirects are not followed")
            found = b""
            async for piece in answer.aiter_bytes():
                found += piece
                if len(found) > LARGEST:
                    raise ValueError(f"the answer has more than {LARGEST} bytes")
            return found


def _keys(body: bytes, algorithms: Sequence[str]) -> Keys:
    """Those that may verify a signature by one of `algorithms`. Raises ValueError without any."""
    said: Any = msgspec.json.decode(body)
    listed = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise ValueError(f"no JWKS with a list of at most {MOST_KEYS} keys")
    found = {}
    for data in listed:
        if not isinstance(data, dict) or data.get("use", "sig") != "sig":
            continue
        for algorithm in algorithms:
            try:
                if (key := _key(data, algorithm)) is not None:
                    found[str(data.get("kid", "")), algorithm] = key
            except jwt.PyJWTError:
                continue  # of a kind that nobody here knows: others may do
    if not found:
        raise ValueError(f"none of its {len(listed)} keys verifies {', '.join(algorithms)}")
    return found


def _key(data: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """The key, bound to the algorithm; None where they do not fit. So an RSA key is never taken for an HMAC's secret."""
    if data.get("alg", algorithm) != algorithm:
        return None
    if data.get("kty") == "RSA":
        return jwt.PyJWK(data, algorithm) if algorithm[:2] in ("RS", "PS") else None
    if data.get("kty") in ("EC", "OKP"):
        key = jwt.PyJWK({name: value for name, value in data.items() if name != "alg"})
        return key if key.algorithm_name == algorithm else None
    return None


def _loopback(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
