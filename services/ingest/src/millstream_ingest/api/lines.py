"""A stream of events through one request: lines come in, a result for each goes out meanwhile, and memory stays where it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from starlette.types import Send

from millstream.errors import Refusal
from millstream_ingest.api.answers import OUTCOME, encode, refusal_of
from millstream_ingest.api.gate import Load
from millstream_ingest.domain.bodies import Lines
from millstream_ingest.domain.result import Result
from millstream_ingest.handlers import Acceptor, Admits, Arrival, Permit
from millstream_ingest.handlers.accept import BREATH, Checked

ROOM_EVERY = 0.02
"""Seconds between two looks for room in the gate, which is full of others' bodies: they are written in milliseconds."""
AHEAD = 4
"""Groups of lines on their way to Kafka at once: one is written, one waits, and checking goes on meanwhile."""
_START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/x-ndjson")],
}
_lines = msgspec.json.Encoder().encode_lines

Group = tuple[Checked, "asyncio.Task[None]", int]
"""What was checked, its way to Kafka, and the bytes of its lines."""


class Unread(Exception):
    """The client does not read its answer."""


class LineStream:
    """One request. A reader checks lines and hands them to the log, a writer says what became of them, in order.

    Between them are at most AHEAD groups, so whoever does not read its results is not read either.
    """

    def __init__(
        self,
        door: Admits,
        acceptor: Acceptor,
        send: Send,
        *,
        permit: Permit,
        load: Load,
        arrival: Callable[[], Arrival],
        longest: int,
        patience: float,
        only_rejected: bool,
    ) -> None:
        self._door = door
        self._acceptor = acceptor
        self._send = send
        self._permit = permit
        self._load = load
        self._arrival = arrival
        self._lines = Lines(longest)
        self._patience = patience
        self._only_rejected = only_rejected
        self._groups: asyncio.Queue[Group | None] = asyncio.Queue(AHEAD)
        self._index = 0
        self._begun = False
        self._end: Refusal | None = None
        """Why it ended early."""
        self._gone = False
        """Whether that is because Kafka did not take, or not confirm, what was sent."""
        self._held: Group | None = None
        """What the reader has in hand while the queue is full."""
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        """By code."""

    async def run(self, body: AsyncIterator[bytes]) -> Refusal | None:
        """Until the body is over, or cannot go on: why, then. Raises Refusal when that is before the first line."""
        self._reading = asyncio.create_task(self._read(body))
        try:
            await self._write()
        finally:
            self._reading.cancel()
            [failure] = await asyncio.gather(self._reading, return_exceptions=True)
            for _, written, _ in self._left():
                await asyncio.gather(written, return_exceptions=True)
        if isinstance(failure, Exception):
            raise failure
        if self._end is not None and not self._begun:
            raise self._end
        names = ("accepted", "rejected", "not_accepted", "unknown")
        trailer: dict[str, Any] = {name: self.counts[name] for name in names}
        if self._end is not None:
            trailer |= {"error": self._end.code, "message": str(self._end)}
        await self._say(encode(trailer) + b"\n", more=False)
        return self._end

    async def _read(self, body: AsyncIterator[bytes]) -> None:
        try:
            async for piece in body:
                await self._room(len(piece))
                before = self._lines.held + len(piece)
                lines = self._lines.feed(piece)
                # What is held is charged, not what is open: line ends are gone, and so is what was too long.
                self._load.give_back(before - self._lines.held - sum(map(len, lines)))
                await self._take(lines)
            await self._take(self._lines.end())
        except Refusal as error:
            self._end = self._end or error
        except Exception:
            await self._groups.put(None)
            raise
        await self._groups.put(None)

    async def _room(self, size: int) -> None:
        """Hold `size` bytes of the gate. Raises Refusal(`busy`) where there is no room within the client's patience."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while True:
            try:
                self._load.add(size)
                return
            except Refusal:
                if clock() > until:
                    raise
            await asyncio.sleep(ROOM_EVERY)

    async def _take(self, lines: list[bytes]) -> None:
        first = 0
        while first < len(lines):
            raws = lines[first : first + BREATH]
            raws = raws[: self._permit.most(len(raws), sum(map(len, raws)))]
            first += len(raws)
            size = sum(map(len, raws))
            await self._permit.paced(len(raws), size, self._patience)
            checked = Checked()
            self._acceptor.check(checked, self._door, raws, self._arrival(), first=self._index, open=None)
            self._index += len(raws)
            self._held = checked, asyncio.create_task(self._acceptor.write(checked)), size
            await self._groups.put(self._held)
            self._held = None

    async def _write(self) -> None:
        while (group := await self._groups.get()) is not None:
            await self._tell(group)
            if self._gone:
                # Whatever the client would send on is lost; what was read of it gets its word.
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)
                for left in self._left():
                    await self._tell(left)
                return

    def _left(self) -> Iterator[Group]:
        """What was read and has not been told of, in order, when nobody reads any more."""
        while not self._groups.empty():
            if (group := self._groups.get_nowait()) is not None:
                yield group
        if self._held is not None:
            held, self._held = self._held, None
            yield held

    async def _tell(self, group: Group) -> None:
        checked, written, size = group
        results, good = checked.results, len(checked.results) - len(checked.rejected)
        try:
            await written
            self.counts["accepted"] += good
        except Exception as error:  # noqa: BLE001 - refusal_of raises what is not ours
            why = refusal_of(error)
            self._end, self._gone = self._end or why, True
            self.counts[OUTCOME[why.code]] += good
            results = [_lost(result, OUTCOME[why.code]) for result in results]
        self._load.give_back(size)
        self.counts["rejected"] += len(checked.rejected)
        self.rejected.update(checked.rejected)
        if self._only_rejected:
            results = [result for result in results if result.status != "accepted"]
        if results or not self._begun:
            await self._say(_lines(results))

    async def _say(self, lines: bytes, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._patience):
                if not self._begun:
                    self._begun = True
                    await self._send(_START)
                await self._send({"type": "http.response.body", "body": lines, "more_body": more})
        except TimeoutError as error:
            raise Unread(f"the client did not read its results for {self._patience:g} s") from error


def _lost(result: Result, status: Any) -> Result:
    return result if result.error is not None else Result(index=result.index, status=status, id=result.id)
