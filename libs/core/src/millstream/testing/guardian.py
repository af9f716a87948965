"""Kills what we started when we die without a word (kill -9): a tiny process at the other end of a pipe.

PR_SET_PDEATHSIG does not serve here: it follows the *thread* that forked, so a server started from a pool's thread
would die with that thread; it also misses grandchildren and does not exist on macOS.
"""

import atexit
import subprocess
import sys
import threading
from contextlib import suppress

_PROGRAM = """
import os, signal, sys
for ours in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(ours, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    sign, group = line[0], int(line[1:])
    (groups.add if sign == "+" else groups.discard)(group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Guardian:
    """One watcher for all children of this process. Safe to call from any thread.

    A child is guarded from the instant after its start; a parent killed within that instant leaves it behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._watcher: subprocess.Popen[str] | None = None

    def watch(self, group: int) -> None:
        """Kill process group `group` should this process die before `forget`."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """`group` has ended; its number may be given to somebody else."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        if self._watcher is None or self._watcher.poll() is not None:
            self._start()
            return
        assert self._watcher.stdin is not None
        try:
            self._watcher.stdin.write(line)
            self._watcher.stdin.flush()
        except BrokenPipeError:
            self._start()

    def _start(self) -> None:
        """A new watcher knows every group from the start; so a watcher that was killed is replaced without a gap."""
        self._end()
        # Own session: Ctrl-C in the terminal must not take the watcher before the watched.
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._watcher.stdin is not None
        self._watcher.stdin.write("".join(f"+{group}\n" for group in self._groups))
        self._watcher.stdin.flush()

    def _end(self) -> None:
        if self._watcher is None:
            return
        with suppress(BrokenPipeError):
            if self._watcher.stdin is not None:
                self._watcher.stdin.close()
        self._watcher.wait(timeout=5)
        self._watcher = None

    def close(self) -> None:
        """End the watcher, which kills what is still watched."""
        with self._lock:
            self._end()


GUARDIAN = Guardian()
atexit.register(GUARDIAN.close)
