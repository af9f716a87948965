"""A child process under our hand: started, known to be ready, measured, paused, stopped — always by its own handle."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from millstream.testing.errors import ServerDidNotStart, WaitedTooLong
from millstream.testing.guardian import GUARDIAN
from millstream.testing.waiting import wait_until

TAIL_BYTES = 4_000
"""About forty lines: enough for a Java stack trace's first cause, short enough for a terminal."""
FEASTS = {"PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"}
"""Not handed on. Importing Feast sets both: a child would keep its metrics in a folder that goes when this process does."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a program has used, over all of its starts."""

    peak_rss_bytes: int
    """Of the process itself."""
    cpu_seconds: float
    children_peak_rss_bytes: int = 0
    """Of the largest process that it started, as far as somebody looked while that one ran; 0 without any."""


class ManagedProcess:
    """One program in a session and process group of its own, its output appended to a log file.

    Used from one thread at a time, but `kill9` may come from any. `start` may follow a stop or a kill: same log, a new
    process, and the same arguments unless `args` was changed. When this Python process dies in any way the group is
    killed, unless `outlives_us`.
    """

    def __init__(
        self,
        name: str,
        args: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Callable[[], bool] | None = None,
        ready_within: float = 60,
        outlives_us: bool = False,
    ) -> None:
        """`env` is added to this process's environment; `ready` is asked until true, at most `ready_within` seconds."""
        self.name = name
        self.log = log
        self.args: list[str | Path] = list(args)
        self._env = dict(env or {})
        self._cwd = cwd
        self._ready = ready
        self._ready_within = ready_within
        self._outlives_us = outlives_us
        self._process: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        self._log_start = 0
        self._last_usage: Usage | None = None
        self._spent: Usage | None = None
        """By the starts before this one."""

    @property
    def pid(self) -> int | None:
        """Process id of the last start; None before the first."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit status, minus the signal's number if one ended it; None while it runs or before the first start."""
        return self._process.poll() if self._process else None

    def alive(self) -> bool:
        """Whether the process runs (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until ready. Raises ServerDidNotStart; then nothing is left running."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start without waiting. Nothing happens if it runs already."""
        if self.alive():
            return
        self._clear_group()  # children of a run that ended by itself
        self._spent = self._last_usage
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            try:
                self._process = subprocess.Popen(
                    [str(arg) for arg in self.args],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._cwd,
                    env={name: value for name, value in os.environ.items() if name not in FEASTS} | self._env,
                    start_new_session=True,
                )
            except OSError as error:
                raise ServerDidNotStart(self.name, str(error), self.log, "") from error
        self._group = self._process.pid
        if not self._outlives_us:
            GUARDIAN.watch(self._group)

    def wait_ready(self) -> None:
        """Wait until ready. Raises ServerDidNotStart if it ends or takes too long, and kills it then."""
        try:
            wait_until(
                lambda: not self.alive() or self._ready is None or self._ready(),
                within=self._ready_within,
                what=f"{self.name} to be ready",
            )
        except WaitedTooLong as late:
            self.kill9()
            raise ServerDidNotStart(self.name, str(late), self.log, self.log_tail()) from late
        except BaseException:
            self.kill9()
            raise
        if not self.alive():
            status = self.returncode
            self.kill9()
            raise ServerDidNotStart(self.name, f"it ended with status {status}", self.log, self.log_tail())

    def log_text(self) -> str:
        """What the process wrote since its last start."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as written:
            written.seek(self._log_start)
            return written.read().decode(errors="replace")

    def log_tail(self) -> str:
        """The last lines since the last start, at most 4,000 characters."""
        return self.log_text()[-TAIL_BYTES:].strip()

    def wait(self, within: float) -> int:
        """Exit status, once it has ended by itself. Raises WaitedTooLong."""
        assert self._process is not None, f"{self.name} was never started"
        wait_until(lambda: not self.alive(), within=within, what=f"{self.name} to end")
        self._clear_group()
        return self._process.returncode

    def terminate(self, grace: float = 20) -> None:
        """Ask it to end (SIGTERM), wait `grace` seconds, then kill its whole group. Twice is safe."""
        if self._process is None:
            return
        if self.alive():
            self.usage()
            self.cont_signal()  # a paused process would never see the SIGTERM
            self.ask_to_end()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=grace)
        self.kill9()

    def kill9(self) -> None:
        """SIGKILL to its whole group, at once. Twice is safe."""
        if self._process is None:
            return
        self.usage()
        self._clear_group()
        self._process.wait(timeout=10)

    def _clear_group(self) -> None:
        """Kill what is left of the group, once per start: afterwards its number may belong to somebody else."""
        group, self._group = self._group, None
        if group is None:
            return
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
            os.killpg(group, signal.SIGKILL)
        if not self._outlives_us:
            GUARDIAN.forget(group)

    def ask_to_end(self) -> None:
        """SIGTERM to the process itself, without waiting; one that has ended hears nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def stop_signal(self) -> None:
        """Freeze the whole group (SIGSTOP): connections stay open, nothing answers once this returns."""
        self._signal_group(signal.SIGSTOP)
        if self._process is not None and self.alive() and hasattr(os, "waitid"):  # macOS has it from Python 3.13 on
            # The signal is on its way only; a thread that runs on another core goes on for a moment.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def cont_signal(self) -> None:
        """Let a frozen group go on (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None and self.alive():
            os.killpg(self._process.pid, number)

    def usage(self) -> Usage | None:
        """Memory and CPU time over all starts, as far as it was asked while the process ran; None off Linux.

        A process that ended cannot be asked any more: who wants the last seconds asks every second.
        """
        if self.alive() and (now := _read_usage(self.pid)) is not None:
            before = self._spent or Usage(peak_rss_bytes=0, cpu_seconds=0.0)
            children = self._last_usage.children_peak_rss_bytes if self._last_usage else 0
            self._last_usage = Usage(
                peak_rss_bytes=max(now.peak_rss_bytes, before.peak_rss_bytes),
                cpu_seconds=now.cpu_seconds + before.cpu_seconds,
                children_peak_rss_bytes=max(now.children_peak_rss_bytes, children),
            )
        return self._last_usage

    def resident_bytes(self) -> int:
        """Memory that the process itself has now; 0 where none runs."""
        return _memory(self.pid, "VmRSS:") or 0


def _read_usage(pid: int | None) -> Usage | None:
    try:
        # The command name in parentheses may itself hold spaces; times are fields 14 and 15 of the whole line.
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return None
    peak = _memory(pid, "VmHWM:")
    if peak is None:
        return None
    return Usage(
        peak_rss_bytes=peak,
        cpu_seconds=sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
        children_peak_rss_bytes=max((_memory(child, "VmHWM:") or 0 for child in _descendants(pid)), default=0),
    )


def _memory(pid: int | None, line: str) -> int | None:
    """Bytes that a line of /proc says; None for a process that is not there any more, or is a zombie and has no memory."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = next((one.split()[1] for one in lines if one.startswith(line)), None)
    return None if found is None else int(found) * 1024


def _descendants(pid: int | None) -> Iterator[int]:
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, listed.read_text().split()):
                yield child
                yield from _descendants(child)
