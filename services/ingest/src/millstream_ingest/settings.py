"""The knobs of ingest, each with its reason."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from millstream.contracts.rates import rate_of
from millstream.errors import BadSetup
from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.settings import ServiceSettings

KEYS, JWT, OFF = "keys", "jwt", "off"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""With a public key to verify by. Never HS256 and its kin: there who verifies could sign."""


def _rate(said: Any) -> Any:
    return rate_of(said) if isinstance(said, str) else said


Rate = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_rate)]


class IngestSettings(ServiceSettings, RegistrySettings):
    """Settings of one ingest process."""

    trust_known_at: bool = False
    """Honour the request header `ce-knownat`. For a replay or a backfill only: it moves the clock of every decision."""
    max_event_bytes: Annotated[int, Field(ge=1024, le=1_040_000)] = 1_000_000
    """Of one event in its topic. Kafka's default limit for a batch is 1 MiB, with key and headers."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    """Of a request with one event, counted while it streams in."""
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """Of a request with a batch."""
    max_requests: Annotated[int, Field(ge=1)] = 64
    """Under way at once, from the last byte of their bodies on; further ones are answered 503. From there a request takes
    milliseconds, so 64 are thousands a second."""
    max_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    """Bodies under way at once, from their first byte on; with everything made of them about a quarter of a 1 GiB pod."""
    body_timeout: Annotated[float, Field(gt=0)] = 30.0
    """Seconds for a body to arrive. A client that sends a byte a minute would hold its place for ever."""

    valkey: str | None = None
    """Redis URL through which replicas share what they answered to an Idempotency-Key. Without it each knows its own."""
    dedupe_window: Annotated[float, Field(gt=0)] = 600.0
    """Seconds for which a retry is answered as its first try was, and written no second time. Clients give up long before."""
    dedupe_events: Annotated[int, Field(ge=2)] = 400_000
    """Events remembered for it: 30 MB. Faster streams forget their oldest sooner; readers know events by their id anyway."""
    dedupe_keys: Annotated[int, Field(ge=1)] = 10_000
    """Answers remembered by Idempotency-Key."""
    dedupe_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """Their bodies together: the answer to a batch of 10,000 events has a megabyte."""

    auth: str | None = None
    """Who may write: `keys`, `jwt`, `keys,jwt`, or `off`. Unset is off on loopback; elsewhere ingest asks what is meant."""
    jwt_issuer: str | None = None
    """The `iss` of every token."""
    jwt_audience: str | None = None
    """In the `aud` of every token: one that was made for another service opens nothing here."""
    jwt_jwks: str | None = None
    """Address of the issuer's public keys (JWKS). https, unless it is on loopback: who changes them on the way may write."""
    jwt_algorithms: str = "RS256"
    """Comma separated. A token chooses among these only, and its key's kind has to fit."""

    quota_events: Rate = None
    """Of each producer that has no limit of its own, over all replicas that share a `valkey`: 1000/s. Unset: no limit."""
    quota_bytes: Rate = None
    """The same in bytes, as 5MB/s, of what is unpacked."""
    quota_burst: Annotated[float, Field(gt=0, le=3600)] = 2.0
    """Seconds of its rate that a producer may send at once: clients send in batches, some times a second."""

    max_downstream_lag: Annotated[float, Field(gt=0)] | None = None
    """Seconds. Where features has left an event of a stream unread for longer, the stream answers 429. Unset: Kafka keeps what
    waits, so a lag costs freshness and no event."""

    def ways(self) -> frozenset[str]:
        """KEYS, JWT, both, or none where anybody may write. Raises BadSetup with what to set."""
        if self.auth is None:
            if not self.on_loopback():
                raise BadSetup(
                    f"MILLSTREAM_HOST={self.host} is open to the network, and MILLSTREAM_AUTH does not say who may write; set "
                    "MILLSTREAM_AUTH=keys (millstream keys create makes one), =jwt, =keys,jwt, or =off where something else "
                    "keeps strangers out"
                )
            return frozenset()
        said = frozenset(word.strip() for word in self.auth.split(","))
        if said == {OFF}:
            return frozenset()
        if not said <= {KEYS, JWT}:
            raise BadSetup(f"MILLSTREAM_AUTH={self.auth!r}; write off, keys, jwt or keys,jwt")
        if JWT in said:
            for name in ("jwt_issuer", "jwt_audience", "jwt_jwks"):
                if not getattr(self, name):
                    raise BadSetup(f"MILLSTREAM_AUTH has jwt, so it needs MILLSTREAM_{name.upper()}")
            self.algorithms()
        return said

    def algorithms(self) -> tuple[str, ...]:
        """Raises BadSetup."""
        found = tuple(word.strip() for word in self.jwt_algorithms.split(","))
        for word in found:
            if word not in ALGORITHMS:
                raise BadSetup(f"MILLSTREAM_JWT_ALGORITHMS has {word!r}; write some of {', '.join(ALGORITHMS)}")
        return found

    def on_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
