"""The API keys there are, and whether one that is shown is one of them."""

from __future__ import annotations

import hmac
from typing import NamedTuple

from millstream.contracts.api_keys import digest_of, id_of
from millstream.contracts.events import KeyState
from millstream.contracts.times import from_datetime, to_rfc3339
from millstream.errors import Refusal
from millstream_ingest.domain.producer import Producer


class _Held(NamedTuple):
    digest: bytes
    producer: Producer
    name: str
    expires: int | None
    """Microseconds."""
    revoked: bool


_NOBODY = bytes(32)


class Keyring:
    """Keys by id. People make them one at a time, so all that there are fit in memory: some 500 bytes each."""

    def __init__(self) -> None:
        self._keys: dict[str, _Held] = {}

    def hear(self, state: KeyState) -> None:
        """A key as it stands now. Raises ValueError for a digest that is none."""
        digest = bytes.fromhex(state.digest)
        if len(digest) != len(_NOBODY):
            raise ValueError(f"the digest of key {state.key} has {len(digest)} bytes")
        producer = Producer(
            f"key:{state.key}", frozenset(state.streams), state.events_per_second, state.bytes_per_second
        )
        expires = None if state.expires_at is None else from_datetime(state.expires_at)
        self._keys[state.key] = _Held(digest, producer, state.name, expires, state.revoked_at is not None)

    def forget(self, id: str) -> None:
        """Whatever it was, it opens nothing any more."""
        self._keys.pop(id, None)

    def find(self, text: str, now: int) -> Producer:
        """Whose key `text` is. Raises Refusal(`unauthorized`).

        What became of a key is told only to who has its secret, and how far a wrong one is right to nobody.
        """
        id = id_of(text)
        held = None if id is None else self._keys.get(id)
        right = hmac.compare_digest(digest_of(text), _NOBODY if held is None else held.digest)
        if held is None or not right:
            raise Refusal("unauthorized", "there is no such API key; look with: millstream keys list")
        if held.revoked:
            raise Refusal("unauthorized", f"the API key {id} ({held.name}) was revoked; ask for another one")
        if held.expires is not None and held.expires <= now:
            said = to_rfc3339(held.expires)
            raise Refusal("unauthorized", f"the API key {id} ({held.name}) expired at {said}; ask for another one")
        return held.producer
