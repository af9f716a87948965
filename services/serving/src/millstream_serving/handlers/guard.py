"""Runs a model that has yet to earn trust: beside the answering one, never waited for beyond a deadline."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


OVERDUE = 10
"""Niceness of a run that is overdue: a tenth of the share of a core that whoever answers gets. Not the lowest, 19: the run
needs the interpreter's lock once more at its end, and nobody answers while it holds that and waits for a core."""


class Guard:
    """One run at a time, on a thread of its own. While a run is overdue no other begins, and on Linux, where a thread has a
    niceness of its own, it gives way: a hanging model costs one thread, and little of a core that others need.

    The thread is a daemon, and not one of the event loop's: those are waited for when the process stops.
    """

    def __init__(self) -> None:
        self._free = asyncio.Lock()
        self._running: asyncio.Future[Any] | None = None

    async def call(self, work: Callable[[], T], deadline: float) -> T | None:
        """What `work` returns, waiting for its turn included; None where that takes more than `deadline` seconds, and at
        once while an earlier run is overdue. Raises what `work` raises."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        try:
            async with asyncio.timeout_at(until):
                await self._free.acquire()
        except TimeoutError:
            return None
        try:
            if self._running is not None and not self._running.done():
                return None
            thread, running = _beside(work, loop)
            self._running = running
            # An answer that is there by the time that we look is not late, even if this event loop was busy elsewhere.
            await asyncio.wait({running}, timeout=until - loop.time())
            if running.done():
                return running.result()
            give_way(thread)
            return None
        finally:
            self._free.release()


def _beside(work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> tuple[threading.Thread, asyncio.Future[T]]:
    """A new thread and the outcome of `work` on it: 0.05 ms, and no pool that a hanging run could fill."""
    outcome: asyncio.Future[T] = loop.create_future()
    # An overdue run that fails when nobody waits for it any more is no news.
    outcome.add_done_callback(lambda done: done.exception())

    def run() -> None:
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001  (handed to whoever waits)
            _tell(loop, outcome.set_exception, error)
            return
        _tell(loop, outcome.set_result, found)

    thread = threading.Thread(target=run, daemon=True, name="model on trial")
    thread.start()
    return thread, outcome


def give_way(thread: threading.Thread) -> None:
    """From here on whoever answers questions has the core first."""
    # Elsewhere the number of a thread may be that of somebody's process.
    if sys.platform == "linux" and thread.native_id is not None and thread.is_alive():
        with suppress(OSError):  # it ended just now, or a sandbox forbids it
            now = os.getpriority(os.PRIO_PROCESS, thread.native_id)
            os.setpriority(os.PRIO_PROCESS, thread.native_id, max(now, OVERDUE))


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[Any], None], what: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits
        loop.call_soon_threadsafe(tell, what)
