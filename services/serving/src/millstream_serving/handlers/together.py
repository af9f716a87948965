"""Carries out what many callers ask in few runs: whoever comes while another run is under way goes along with the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST_TOGETHER = 64
"""Questions of one run. A run of so many features and trees takes about a millisecond: nobody's neighbours cost more."""
AT_ONCE = 2
"""Runs under way before the next ones wait: one that computes, while another waits for the online store."""
LONGEST_WAIT = 0.001
"""Seconds until who waits for company leaves without. A store that hangs holds up those who asked it, and nobody else."""


class Together(Generic[Q, A]):
    """A caller who is alone leaves in the same turn of the event loop. Used from one event loop."""

    def __init__(self, work: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]]) -> None:
        """`work` answers each question, or says what error its caller gets. What it raises all of them get."""
        self._work = work
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._runs: set[asyncio.Task[None]] = set()
        self._due = False
        self._clock: asyncio.TimerHandle | None = None

    def ask(self, question: Q) -> asyncio.Future[A]:
        """The answer, to be awaited."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answer))
        if not self._due:
            # Not at once: whoever else is ready in this turn of the loop comes along.
            self._due = True
            loop.call_soon(self._leave)
        return answer

    def _leave(self, overdue: bool = False) -> None:
        if self._waiting and (overdue or len(self._runs) < AT_ONCE):
            run = asyncio.get_running_loop().create_task(self._run())
            self._runs.add(run)
            run.add_done_callback(self._done)
            self._due = True  # until it begins: whoever comes meanwhile comes along
            return
        self._due = False
        if self._waiting and self._clock is None:
            self._clock = asyncio.get_running_loop().call_later(LONGEST_WAIT, self._hurry)

    def _hurry(self) -> None:
        self._clock = None
        self._leave(overdue=True)

    def _done(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        if self._waiting and not self._due:
            self._leave()

    async def _run(self) -> None:
        some = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
        self._leave()
        if not some:
            return  # the run before took them along
        try:
            found: Sequence[A | Exception] = await self._work([question for question, _ in some])
        except asyncio.CancelledError:
            for _, answer in some:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001  (handed to each caller)
            found = [error] * len(some)
        for (_, answer), one in zip(some, found, strict=True):
            if answer.done():
                continue  # its caller has left
            if isinstance(one, Exception):
                answer.set_exception(one)
            else:
                answer.set_result(one)
