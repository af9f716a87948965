"""However often and however somebody asks to stop: what runs is stopped once, in order, and one line says so."""

from __future__ import annotations

import signal
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
    output, errors = child.communicate(timeout=30)
    assert output == "stopped in order\n"
    assert errors == "millstream: stopped\n"
    assert child.returncode == status
