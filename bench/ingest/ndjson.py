"""NDJSON, a result per event: one body of any length, sent while its answer is read."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from door import LOAD_CORE, Door
from workload import SINGLE, event

BLOCK = 5_000
"""Events that are made once; further blocks differ from it in their ids only, so the load costs next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    events: int
    events_per_second: int
    cpu_us: float
    """Of the server, an event."""
    peak_mb: float
    grown_mb: float
    """Resident memory, from the first tenth of the body to its end."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    events_per_second: int
    cpu_us: float
    """Of the server, an event."""


def ndjson(door: Door, events: int, run: int) -> Stream:
    """Raises RuntimeError when not every event was accepted, or has no result."""
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    host, port = door.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    head = f"POST {SINGLE} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\n"
    blocks = -(-events // BLOCK)
    size = sum(len(line) + 1 for line in map(event, range(BLOCK))) * blocks
    sender = threading.Thread(target=_send, args=(sock, f"{head}content-length: {size}\r\n\r\n".encode(), blocks, run))
    memory = Memory(door)
    spent, began = door.cpu_seconds(), time.perf_counter()
    memory.start()
    sender.start()
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    results, last = 0, b""
    while piece := answer.read1(1 << 18):
        results += piece.count(b"\n")
        last = (last + piece)[-4096:]
    seconds, spent = time.perf_counter() - began, door.cpu_seconds() - spent
    sender.join()
    memory.stop()
    sock.close()
    trailer = json.loads(last.splitlines()[-1])
    if answer.status != 200 or trailer.get("accepted") != blocks * BLOCK or results != blocks * BLOCK + 1:
        raise RuntimeError(f"{answer.status}, {results} lines, the last: {trailer}")
    return Stream(
        events=blocks * BLOCK,
        events_per_second=round(blocks * BLOCK / seconds),
        cpu_us=round(spent / (blocks * BLOCK) * 1e6, 2),
        peak_mb=round(max(memory.seen)),
        grown_mb=round(memory.seen[-1] - memory.seen[len(memory.seen) // 10]),
    )


def batches(door: Door, path: str, events: int, run: int) -> Batches:
    """Events in NDJSON bodies of BLOCK events, one after the other on two connections, each answered whole."""
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    bodies = _blocks(events // BLOCK, run)
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection(door.url.removeprefix("http://"))
        while True:
            with lock:
                body = next(bodies, None)
            if body is None:
                return
            connection.request("POST", path, body, {"content-type": "application/x-ndjson"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 202:
                raise RuntimeError(f"{path}: {answer.status}")

    spent, began = door.cpu_seconds(), time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds, spent, sent = time.perf_counter() - began, door.cpu_seconds() - spent, events // BLOCK * BLOCK
    return Batches(events_per_second=round(sent / seconds), cpu_us=round(spent / sent * 1e6, 2))


def _blocks(count: int, run: int) -> Iterator[bytes]:
    """Events `count` × BLOCK, no id twice within a run or between runs."""
    made = b"".join(event(number) + b"\n" for number in range(BLOCK))
    for number in range(count):
        yield made.replace(b"-UA-0000000", b"-UA-%02d%05d" % (run % 100, number))


def _send(sock: socket.socket, head: bytes, blocks: int, run: int) -> None:
    sock.sendall(head)
    for block in _blocks(blocks, run):
        sock.sendall(block)


class Memory(threading.Thread):
    """Looks at the server's resident memory four times a second."""

    def __init__(self, door: Door) -> None:
        super().__init__()
        self._door = door
        self._done = threading.Event()
        self.seen = [door.rss_mb()]

    def run(self) -> None:
        while not self._done.wait(0.25):
            self.seen.append(self._door.rss_mb())

    def stop(self) -> None:
        self._done.set()
        self.join()
