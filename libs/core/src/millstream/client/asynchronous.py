"""The client for asyncio programs: as `Client`, and it takes events from an asynchronous iterator as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from millstream.client import batches
from millstream.client.batches import Batches, OnProgress, OnRejected, Progress
from millstream.client.replies import Accepted, Reply, accepted, answered
from millstream.client.requests import Requests, Token
from millstream.client.talk import Ask, Lost, T, Talk, Wait, settle
from millstream.client.transport import NOT_SENT, PATIENCE, TIMEOUT, lost, reply_of

_END = object()


class AsyncClient:
    """A mill's ingest, and its serving; for one event loop. `aclose` it, or use it in an `async with`.

    The arguments are those of `Client`; `http` is an httpx.AsyncClient.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        token: Token | None = None,
        serving: str | None = None,
        patience: float = PATIENCE,
        timeout: float = TIMEOUT,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._requests = Requests(url, key=key, token=token, serving=serving)
        self._patience = patience
        self._timeout = timeout
        self._owned = http is None
        self._http = http or httpx.AsyncClient()

    async def send(self, stream: str, event: Any, *, id: str | None = None) -> Accepted:
        """As `Client.send`."""
        ask = self._requests.event(stream, event, id)
        return accepted(await self._run(settle(ask, self._patience)), event)

    async def send_many(
        self,
        stream: str,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        on_rejected: OnRejected | None = None,
        on_progress: OnProgress | None = None,
        batch_events: int = batches.EVENTS,
        batch_bytes: int = batches.BYTES,
        linger: float = 0.5,
    ) -> Progress:
        """As `Client.send_many`. `linger`: seconds that an event of an asynchronous iterator waits for others, at most."""
        run = Batches(
            most_events=batch_events, most_bytes=batch_bytes, on_rejected=on_rejected, on_progress=on_progress
        )
        if isinstance(events, AsyncIterable):
            await self._as_they_come(stream, aiter(events), run, linger)
        else:
            for event in events:
                if run.add(event):
                    await self._batch(stream, run)
        while run.lines:
            await self._batch(stream, run)
        return run.progress

    async def label(self, loop: str, key: Mapping[str, Any], value: Any, *, at: datetime | None = None) -> Accepted:
        """As `Client.label`."""
        return accepted(await self._run(settle(self._requests.label(loop, key, value, at), self._patience)))

    async def predict(self, loop: str, event: Any, *, patience: float = 5.0) -> dict[str, Any]:
        """As `Client.predict`."""
        return answered(await self._run(settle(self._requests.question(loop, event), patience)), event)

    async def aclose(self) -> None:
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _as_they_come(self, stream: str, events: AsyncIterator[Any], run: Batches, linger: float) -> None:
        clock = asyncio.get_running_loop().time
        due = 0.0
        coming: asyncio.Task[Any] | None = None
        try:
            while True:
                # A task, so that the batch can leave while the iterator is still being waited for: to cancel it would
                # end the iterator, or lose what it was about to give.
                coming = coming or asyncio.ensure_future(_next(events))
                if run.lines:
                    await asyncio.wait({coming}, timeout=max(0.0, due - clock()))
                    if not coming.done():
                        await self._batch(stream, run)
                        due = clock() + linger
                        continue
                event, coming = await coming, None
                if event is _END:
                    return
                due = due if run.lines else clock() + linger
                if run.add(event):
                    await self._batch(stream, run)
                    due = clock() + linger
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})

    async def _batch(self, stream: str, run: Batches) -> None:
        run.settled(await self._run(settle(self._requests.batch(stream, run.lines), self._patience)))

    async def _run(self, talk: Talk[T]) -> T:
        heard: Reply | Lost | None = None
        while True:
            try:
                step = talk.send(heard)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                heard = None
            else:
                heard = await self._try(step)

    async def _try(self, ask: Ask) -> Reply | Lost:
        try:
            return reply_of(
                await self._http.request(
                    ask.method, ask.url, content=ask.content, headers=dict(ask.headers), timeout=self._timeout
                )
            )
        except httpx.TransportError as error:
            return lost(error, sent=not isinstance(error, NOT_SENT))


async def _next(events: AsyncIterator[Any]) -> Any:
    try:
        return await anext(events)
    except StopAsyncIteration:
        return _END
