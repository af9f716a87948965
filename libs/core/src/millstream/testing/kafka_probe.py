"""Asks a broker for the cluster's metadata over a plain socket: the shortest honest proof that it serves."""

import socket
import struct

from millstream.testing.ports import HOST

_METADATA, _VERSION = 3, 1
_NO_TOPICS = struct.pack(">i", 0)
ANSWERS_WITHIN_SECONDS = 1.0
"""On loopback an answer takes 2 ms."""


def brokers_in_metadata(port: int) -> int:
    """How many brokers the one on `port` knows to be serving; 0 when it does not answer within a second."""
    try:
        with socket.create_connection((HOST, port), timeout=ANSWERS_WITHIN_SECONDS) as connection:
            client = b"probe"
            body = struct.pack(">hhih", _METADATA, _VERSION, 1, len(client)) + client + _NO_TOPICS
            connection.sendall(struct.pack(">i", len(body)) + body)
            size, _correlation, brokers = struct.unpack(">iii", _receive(connection, 12))
            return int(brokers) if size > 0 else 0
    except (OSError, EOFError):
        return 0


def _receive(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = connection.recv(count - len(got))
        if not more:
            raise EOFError("the broker closed the connection")
        got += more
    return got
