"""Decides who comes in, before anything of a request is read: whose it is, what that one may write, and how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from millstream.errors import Refusal, RetryLater
from millstream_ingest.domain.keyring import Keyring
from millstream_ingest.domain.producer import ANONYMOUS, EVERY, Producer
from millstream_ingest.errors import LogAway
from millstream_ingest.handlers.lag import LagWatch
from millstream_ingest.handlers.quotas import Quota, Quotas
from millstream_ingest.ports import Tokens

LONGEST = 8192
"""Bytes of a credential. Tokens with a few hundred scopes fit; a longer one is not even hashed."""


class Permit:
    """What one request may do."""

    __slots__ = ("_quota", "producer")

    def __init__(self, producer: str, quota: Quota | None) -> None:
        """`producer`: its name. What one remembers of a request is for retries of that one alone."""
        self.producer = producer
        self._quota = quota

    def charge(self, events: int, size: int) -> None:
        """Before `events` of `size` bytes together are accepted. Raises Refusal(`quota`)."""
        if self._quota is None:
            return
        if (wait := self._quota.wait(events, size)) > 0:
            raise self._quota.refusal(wait)
        self._quota.take(events, size)

    def most(self, events: int, size: int) -> int:
        """How many of `events`, of `size` bytes together, may go at once: what its buckets hold, one at least."""
        return events if self._quota is None else self._quota.most(events, size)

    async def paced(self, events: int, size: int, patience: float) -> None:
        """The same for a stream, which is slowed down to its rate. Raises Refusal(`quota`) beyond `patience` (s)."""
        if self._quota is None:
            return
        while (wait := self._quota.wait(events, size)) > 0:
            if wait > patience:
                raise self._quota.refusal(wait)
            await asyncio.sleep(wait)
        self._quota.take(events, size)


class Porter:
    """One for the process. `keys` and `tokens` are what is taken; without both anybody may write."""

    def __init__(
        self,
        *,
        keys: Keyring | None,
        keys_read: asyncio.Event,
        tokens: Tokens | None,
        quotas: Quotas,
        lag: LagWatch,
        clock: Callable[[], int],
    ) -> None:
        self._keys = keys
        self._keys_read = keys_read
        self._tokens = tokens
        self._quotas = quotas
        self._lag = lag
        self._clock = clock

    async def admit(self, headers: Iterable[tuple[bytes, bytes]], stream: str) -> Permit:
        """Raises Refusal(`unauthorized`, `forbidden`, `downstream_lag`, `quota`), LogAway where nobody can say yet."""
        producer = await self.known(headers)
        if not producer.may_write(stream):
            raise Refusal("forbidden", f"{producer.name} may not write {stream}; it may write: {_list(producer)}")
        self._lag.check(stream)
        quota = self._quotas.of(producer)
        if quota is not None and (wait := quota.wait(1, 1)) > 0:
            raise quota.refusal(wait)
        return Permit(producer.name, quota)

    async def sees_all(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """For what shows something of every stream. Raises Refusal(`unauthorized`, `forbidden`), LogAway."""
        producer = await self.known(headers)
        if EVERY not in producer.streams:
            raise Refusal("forbidden", f"{producer.name} may not see all streams; that takes a credential for *")

    async def known(self, headers: Iterable[tuple[bytes, bytes]]) -> Producer:
        """Who asks. Raises Refusal(`unauthorized`), LogAway."""
        if self._keys is None and self._tokens is None:
            return ANONYMOUS
        said = _credential(headers)
        if said is None:
            raise Refusal("unauthorized", f"say who you are: {self._wanted()}")
        if len(said) > LONGEST:
            raise Refusal(
                "unauthorized", f"the credential has {len(said)} bytes, more than the {LONGEST} that one may have"
            )
        if self._tokens is not None and said.count(".") == 2:
            try:
                return await self._tokens.producer(said)
            except RetryLater as error:
                raise LogAway(str(error)) from error
        if self._keys is None:
            raise Refusal("unauthorized", f"the credential is no token; {self._wanted()}")
        if not self._keys_read.is_set():
            raise LogAway("the API keys are not read yet; nothing was taken")
        return self._keys.find(said, self._clock())

    def _wanted(self) -> str:
        ways = []
        if self._keys is not None:
            ways.append("send an API key (millstream keys create makes one) as X-API-Key or Authorization: Bearer ms_…")
        if self._tokens is not None:
            ways.append("send a token as Authorization: Bearer …")
        return ", or ".join(ways)


def _credential(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What the request shows. Raises Refusal(`unauthorized`) where that is another kind, or there are several."""
    found = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value)
        elif name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Refusal("unauthorized", "the Authorization header is no bearer; write Authorization: Bearer …")
            found.append(rest)
    if not found:
        return None
    if len(found) > 1:
        raise Refusal("unauthorized", "the request shows several credentials; send one, in one header")
    return found[0].strip().decode("latin-1")


def _list(producer: Producer) -> str:
    names = sorted(producer.streams)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"
