"""The only way to wait here: for a condition, within a bound, with a name."""

import time
from collections.abc import Callable

from millstream.testing.errors import WaitedTooLong

POLL_SECONDS = 0.05
"""Short beside a server's start (0.5 s and more), long enough to cost no CPU worth naming."""


def wait_until(condition: Callable[[], bool], *, within: float, what: str, every: float = POLL_SECONDS) -> None:
    """Return as soon as `condition()` is true; ask again after `every` seconds.

    Raises WaitedTooLong after `within` seconds. The condition itself must not block for long.
    """
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() >= deadline:
            raise WaitedTooLong(what, within)
        time.sleep(every)
