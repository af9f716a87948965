"""What can go wrong while servers start, each with what to do about it."""

from pathlib import Path

from millstream.errors import MillstreamError


class EmbeddedError(MillstreamError):
    """A server, its tools or its folder is not usable; the message says what to do."""


class ServerDidNotStart(EmbeddedError):
    """A child process ended, or was not ready in time. Carries the log file's path and its last lines."""

    def __init__(self, name: str, why: str, log: Path, tail: str) -> None:
        super().__init__(f"{name} did not start: {why}\nlog file: {log}\nlast lines:\n{tail or '(the log is empty)'}")
        self.name = name
        self.log = log


class PortTaken(EmbeddedError):
    """Somebody else listens on a wanted port. `setting` names what to change instead."""

    def __init__(self, port: int, setting: str) -> None:
        super().__init__(f"port {port} on 127.0.0.1 is taken: stop what listens there, or set {setting} to a free port")
        self.port = port


class ToolMissing(EmbeddedError):
    """A Java, a jar or an optional Python package is missing."""


class FolderUnusable(EmbeddedError):
    """The data folder is not writable or its disk is too full."""


class StackAlreadyRunning(EmbeddedError):
    """Another process runs its servers on the same data folder."""

    def __init__(self, root: Path, pid: str) -> None:
        super().__init__(
            f"{root} is in use by process {pid or 'unknown'}: stop it first, or choose another data folder"
        )


class WaitedTooLong(EmbeddedError):
    """A condition did not come true within its bound."""

    def __init__(self, what: str, within: float) -> None:
        super().__init__(f"waited {within:g} s for {what}, in vain")
