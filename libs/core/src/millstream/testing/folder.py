"""The data folder of a stack: writable, with room, and used by one process at a time."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from millstream.testing.cache import try_lock
from millstream.testing.errors import FolderUnusable, StackAlreadyRunning

MIN_FREE_BYTES = 1024**3
"""A year of flights leaves 0.4 GB in Kafka, the lake and MLflow; Kafka stops for good on a full disk."""


def disk_free(folder: Path) -> int:
    """Bytes that we may still write in `folder`."""
    return shutil.disk_usage(folder).free


def check_folder(root: Path, *, min_free_bytes: int, free_bytes: Callable[[Path], int]) -> None:
    """Create `root` if need be. Raises FolderUnusable when we cannot write there or have too little room."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise FolderUnusable(f"{root} is not writable ({error.strerror}): choose another data folder") from error
    free = free_bytes(root)
    if free < min_free_bytes:
        raise FolderUnusable(
            f"{root} has {free / 1024**2:,.0f} MiB free, the servers want {min_free_bytes / 1024**2:,.0f} MiB: "
            "make room, or choose another data folder"
        )


LOOK, LOOKS = 0.02, 10
"""Seconds between two tries to get the lock, and how many there are."""


class FolderLock:
    """Held while a stack runs on a folder. The system drops it when the holder dies, so it is never stale."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises StackAlreadyRunning, naming the holder's process id."""
        descriptor = os.open(self._root / "stack.lock", os.O_RDWR | os.O_CREAT, 0o644)
        if not self._lock(descriptor):
            holder = os.read(descriptor, 32).decode().strip()
            os.close(descriptor)
            raise StackAlreadyRunning(self._root, holder)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def _lock(self, descriptor: int) -> bool:
        for _ in range(LOOKS):
            if try_lock(descriptor):
                return True
            time.sleep(LOOK)  # somebody may just look whether it is held, which takes it for an instant
        return False

    def held(self) -> bool:
        """Whether a stack runs here, whoever's."""
        try:
            descriptor = os.open(self._root / "stack.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            return not try_lock(descriptor)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Twice is safe. The file stays: removing it would let two holders lock two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
