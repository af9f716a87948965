"""Who sends: what a credential says of its holder, however it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from millstream.errors import Refusal

EVERY = "*"
LONGEST_SUBJECT = 256
"""Characters. It becomes the name of a bucket."""
_WRITE = "write:"


class Producer(NamedTuple):
    """What it may do."""

    name: str
    """`key:<id>`, `jwt:<subject>` or `anonymous`: whose quota is charged."""
    streams: frozenset[str]
    """`*` is every stream."""
    events: float | None = None
    """A second, where it has a limit of its own."""
    bytes: float | None = None

    def may_write(self, stream: str) -> bool:
        return stream in self.streams or EVERY in self.streams


ANONYMOUS = Producer("anonymous", frozenset({EVERY}))
"""Everybody, where nobody is asked."""


def producer_of(claims: Mapping[str, Any]) -> Producer:
    """Of a token that was verified. Scopes are the claim `streams` (a list, or words) or words `write:<stream>` in `scope`.

    Raises Refusal(`unauthorized`) where it names nobody.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        # Half a surrogate pair is no text that Valkey takes, and a line end would forge lines of a log.
        raise Refusal("unauthorized", f"the token's sub is no name of 1 to {LONGEST_SUBJECT} printable characters")
    said = claims.get("streams")
    named = _words(said)
    scopes = _words(claims.get("scope"))
    named |= {word.removeprefix(_WRITE) for word in scopes if word.startswith(_WRITE)}
    return Producer(f"jwt:{subject}", frozenset(named))


def _words(said: object) -> set[str]:
    if isinstance(said, str):
        return set(said.split())
    return {word for word in said if isinstance(word, str)} if isinstance(said, list) else set()
