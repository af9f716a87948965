"""What a server of one process can do; Valkey and MLflow add how to start it and when it is ready."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from millstream.testing.ports import claim
from millstream.testing.process import ManagedProcess, Usage


class SingleServer(ABC):
    """One server with its data under `data_dir`. Data and port survive stop, kill9 and start."""

    name: str
    """Of the process and its log file."""

    def __init__(self, data_dir: Path, port: int | None = None, *, log_dir: Path | None = None) -> None:
        """Nothing is started yet; None takes any free port. A log is kept in `log_dir`, else in `data_dir`."""
        self._data = data_dir.absolute()
        self._log = (log_dir or data_dir).absolute() / f"{self.name}.log"
        self._wanted = port
        self._port = 0
        self._process: ManagedProcess | None = None

    @abstractmethod
    def _prepare(self) -> ManagedProcess:
        """The process that will serve on `self._port`. Called once; `self._data` exists."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect. Known from the first start on."""

    @property
    def processes(self) -> list[ManagedProcess]:
        """Empty before the first start."""
        return [self._process] if self._process else []

    def start(self) -> None:
        """Start and wait until it answers. Raises PortTaken, ToolMissing, ServerDidNotStart."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start without waiting; the address is known afterwards. Raises PortTaken, ToolMissing, ServerDidNotStart."""
        if self._process is None:
            self._port = claim(self._wanted, f"the port of {self.name}")
            self._data.mkdir(parents=True, exist_ok=True)
            self._process = self._prepare()
        self._process.launch()

    def wait_ready(self) -> None:
        """After `launch`: wait until it answers. Raises ServerDidNotStart; then nothing is left running."""
        assert self._process is not None, "launch first"
        self._process.wait_ready()

    def stop(self) -> None:
        """Orderly end. Twice is safe."""
        for process in self.processes:
            process.terminate()

    def kill9(self) -> None:
        """The plug is pulled (SIGKILL)."""
        for process in self.processes:
            process.kill9()

    def restart(self) -> None:
        """Stop and start, same data, same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze (SIGSTOP): connections stay open, nothing answers."""
        for process in self.processes:
            process.stop_signal()

    def resume(self) -> None:
        """Undo `pause`."""
        for process in self.processes:
            process.cont_signal()

    def usage(self) -> list[Usage | None]:
        """Memory and CPU, one entry; none before the first start."""
        return [process.usage() for process in self.processes]

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Started inside, stopped after."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
