"""Tokens as JSON Web Tokens (RFC 7519), verified by PyJWT under what the settings pin (RFC 8725)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import jwt

from millstream.contracts import times
from millstream.contracts.times import SECOND
from millstream.errors import Refusal
from millstream_ingest.adapters.jwks import Jwks
from millstream_ingest.domain.producer import Producer, producer_of

LEEWAY = 30
"""Seconds that clocks may differ by."""
REMEMBERED = 10_000
"""Tokens that were verified, some 500 bytes each, by their SHA-256: a signature costs 50 µs and more, to look it up 2."""


class JwtTokens:
    def __init__(
        self,
        jwks: Jwks,
        *,
        issuer: str,
        audience: str,
        algorithms: Sequence[str],
        clock: Callable[[], int] = times.now,
    ) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._algorithms = algorithms
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[int, Producer]] = OrderedDict()
        """Until when (microseconds) it is good, and whose it is."""
        self._generation = 0

    async def producer(self, text: str) -> Producer:
        self._jwks.known()
        if self._generation != self._jwks.generation:
            # A key may be gone, and what it signed with it.
            self._known.clear()
            self._generation = self._jwks.generation
        digest = hashlib.sha256(text.encode("latin-1")).digest()
        if (known := self._known.get(digest)) is not None:
            if self._clock() < known[0]:
                return known[1]
            del self._known[digest]
        try:
            until, producer = await self._verified(text)
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise Refusal("unauthorized", f"the token is not good: {_said(error)}") from error
        self._known[digest] = until, producer
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return producer

    async def _verified(self, text: str) -> tuple[int, Producer]:
        head = jwt.get_unverified_header(text)
        algorithm, kid = head.get("alg"), head.get("kid", "")
        # Before a key is looked for: `none` and HS256 never get as far as one.
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise jwt.InvalidAlgorithmError
        key = await self._jwks.find(kid if isinstance(kid, str) else "", algorithm)
        if key is None:
            raise Refusal("unauthorized", "the token is not good: its issuer has no such key")
        claims = jwt.decode(
            text,
            key,
            algorithms=[algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
        )
        return int(claims["exp"]) * SECOND, producer_of(claims)


def _said(error: Exception) -> str:
    """In our words: the library's may repeat what the token says."""
    match error:
        case jwt.ExpiredSignatureError():
            return "it has expired"
        case jwt.ImmatureSignatureError():
            return "it is not valid yet (nbf, iat)"
        case jwt.InvalidAudienceError():
            return "it is for another audience"
        case jwt.InvalidIssuerError():
            return "it is of another issuer"
        case jwt.InvalidSignatureError():
            return "its signature is wrong"
        case jwt.InvalidAlgorithmError():
            return "it is not signed by an algorithm that is taken here"
        case jwt.MissingRequiredClaimError():
            return f"it has no {error.claim}"
        case _:
            return "it cannot be read"
