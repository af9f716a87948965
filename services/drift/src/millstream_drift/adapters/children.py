"""Processes for work that takes seconds of a core: so many at once, each with a deadline, none of them drift's own time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

NICENESS = 19
"""A report is for people, who wait seconds; events do not."""


class Children:
    """Places for child processes. Who waits longest for one is next."""

    def __init__(self, *, most: int, timeout: float) -> None:
        """`timeout`: seconds for one process."""
        self.most = most
        self._timeout = timeout
        self._places = asyncio.Semaphore(most)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place. What to do with it is decided afterwards, so that it is the newest work."""
        async with self._places:
            yield

    async def run(self, command: Sequence[str], *files: Path) -> None:
        """Run `command` with `files`; call it with a place. One that hangs is killed and hurts nobody else.

        Raises TimeoutError, OSError, and ValueError with the last words of one that failed.
        """
        child = await asyncio.create_subprocess_exec(
            *command,
            *map(str, files),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # Evidently reports its use over the network unless told not to. And numpy's threads would fight the fold.
            env=os.environ | {"DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        with contextlib.suppress(ProcessLookupError):
            # From outside and at once: what it imports takes a second of a core by itself.
            os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        try:
            async with asyncio.timeout(self._timeout):
                _, words = await child.communicate()
        except TimeoutError:
            raise TimeoutError(f"it took longer than {self._timeout:g} seconds") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            last = words.decode(errors="replace").strip().rpartition("\n")[2]
            raise ValueError(f"its process ended with {child.returncode}: {last[:300]}")
