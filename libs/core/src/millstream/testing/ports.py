"""Loopback ports: finds free ones, and says clearly when a wanted one is taken."""

import random
import socket

from millstream.testing.errors import EmbeddedError, PortTaken

HOST = "127.0.0.1"

FIRST, LAST = 20_000, 32_000
"""Below the range from which Linux (32768) and macOS (49152) take the ports of outgoing connections, so that a server
that is down for a moment finds its own port free when it comes back."""

_TRIES = 200
_given: set[int] = set()


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that is free now and that this process has not given out before. Raises EmbeddedError if none is found."""
    for _ in range(_TRIES):
        port = random.randint(FIRST, LAST)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise EmbeddedError(f"no free port found between {FIRST} and {LAST} in {_TRIES} tries")


def claim(port: int | None, setting: str) -> int:
    """`port` if it is free, any free one for None. Raises PortTaken, naming `setting` as what to change."""
    if port is None:
        return free_port()
    if not is_free(port):
        raise PortTaken(port, setting)
    return port
