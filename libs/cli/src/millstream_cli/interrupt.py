"""Ctrl-C, SIGTERM and SIGHUP: the first ends the work in order, the next ones change nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from millstream.errors import MillstreamError

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(MillstreamError):
    """A person or the system asked us to stop, and everything was stopped."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped")
        self.exit_code = 128 + number
        """As shells say it."""


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; a signal cancels it once, and what it does in `finally` runs to its end. Raises Interrupted."""
    task = asyncio.ensure_future(work)
    heard: list[int] = []

    def hear(number: int) -> None:
        if not heard:
            task.cancel()
        heard.append(number)

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, hear, number)
    try:
        return await task
    except asyncio.CancelledError:
        if heard:
            raise Interrupted(heard[0]) from None
        raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            if heard:
                signal.signal(number, signal.SIG_IGN)  # the process ends now, and says so undisturbed
