"""Folder for what is fetched or made once per machine: $MILLSTREAM_CACHE, else $XDG_CACHE_HOME/millstream."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millstream.testing.waiting import wait_until

LOCK_WAIT_SECONDS = 300.0
"""The slowest thing that a test does under the lock is fetching 54 MB of jars: 7 to 25 s on a good line."""


def cache_folder() -> Path:
    """The folder, which may not exist yet."""
    if own := os.environ.get("MILLSTREAM_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millstream"


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file, if nobody holds it. It ends with the file or with this process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def one_at_a_time(file: Path, what: str, within: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold `file` as a lock against other processes and threads. Raises WaitedTooLong after `within` seconds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        wait_until(
            lambda: try_lock(lock.fileno()),
            within=within,
            what=f"another process that {what} ({file})",
        )
        yield
