"""Loopback ports: finds free ones, and says clearly when a wanted one is taken."""

import os
import random
import re
import socket

from millstream.testing.errors import EmbeddedError, PortTaken

HOST = "127.0.0.1"

FIRST, LAST = 20_000, 32_000
"""Below the range from which Linux (32768) and macOS (49152) take the ports of outgoing connections, so that a server
that is down for a moment finds its own port free when it comes back."""

_TRIES = 200
_SHARES = 8
"""Between finding a port and a server's taking it lie seconds, so the workers of pytest-xdist (and what they start)
find theirs in shares of the range. More workers than shares may meet, which is rare."""
_given: set[int] = set()
_dice = random.SystemRandom()
"""Not the shared generator: Hypothesis gives it the same seed in every worker."""


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
    ports = _share(os.environ.get("PYTEST_XDIST_WORKER", ""))
    for _ in range(_TRIES):
        port = _dice.choice(ports)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise EmbeddedError(f"no free port found between {ports[0]} and {ports[-1]} in {_TRIES} tries")


def _share(worker: str) -> range:
    """The ports of xdist's worker `gw3`, say; all of them outside of it."""
    number = re.fullmatch(r"gw(\d+)", worker)
    if number is None:
        return range(FIRST, LAST + 1)
    each = (LAST - FIRST) // _SHARES
    begin = FIRST + int(number[1]) % _SHARES * each
    return range(begin, begin + each)


def claim(port: int | None, setting: str) -> int:
    """`port` if it is free, any free one for None. Raises PortTaken, naming `setting` as what to change."""
    if port is None:
        return free_port()
    if not is_free(port):
        raise PortTaken(port, setting)
    return port
