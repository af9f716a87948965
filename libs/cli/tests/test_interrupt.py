"""However often and however somebody asks to stop: what runs is stopped once, in order, and one line says so."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORK = """
import asyncio, sys, time, typer
from millstream_cli.main import _interruptible, _run

async def work():
    try:
        print("working", flush=True)
        await asyncio.sleep(30)
    finally:
        await asyncio.to_thread(time.sleep, 1.0)
        print("stopped in order", flush=True)

def main():
    with _interruptible():
        _run(work())

typer.run(main)
"""


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGINT] * 4, 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGHUP, signal.SIGINT, signal.SIGTERM], 129),
    ],
)
def test_a_signal_ends_the_work_in_order(tmp_path: Path, signals: list[signal.Signals], status: int) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    child = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "working\n"
    for number in signals:
        child.send_signal(number)
        time.sleep(0.15)
    assert child.stdout.readline() == "stopped in order\n"
    while child.poll() is None:  # who goes on asking until it has ended is told nothing else
        for number in signals[1:]:
            child.send_signal(number)
        time.sleep(0.001)
    output, errors = child.communicate(timeout=30)
    assert output == ""
    assert errors == "millstream: stopped\n"
    assert child.returncode == status


FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


@pytest.mark.parametrize(("more", "how"), [([], "the same command"), (["--fresh"], "the same command without --fresh")])
def test_a_rebuild_that_is_stopped_on_a_terminal_says_what_is_kept(tmp_path: Path, more: list[str], how: str) -> None:
    master, terminal = pty.openpty()
    with socket.socket() as silent:  # a Kafka that takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(60)
        kafka = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ["features", "rebuild", "-p", str(FLIGHTS), "--kafka", kafka, "--lake", str(tmp_path), "--valkey"]
        child = subprocess.Popen(
            [sys.executable, "-m", "millstream_cli.main", *words, "redis://127.0.0.1:1/0", *more],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        connection, _ = silent.accept()
        child.send_signal(signal.SIGINT)
        said = b""
        try:
            while chunk := os.read(master, 4096):
                said += chunk
        except OSError:  # a terminal that nobody holds any more
            pass
        connection.close()
    os.close(master)
    assert child.wait(timeout=30) == 130
    line = " ".join(said.decode().split())
    assert "millstream: stopped; what was read so far is kept" in line
    assert line.endswith(f"{how} goes on where it was")
