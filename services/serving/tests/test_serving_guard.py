"""What keeps a model on trial from harming anybody: a deadline, a thread of its own, one run at a time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from millstream_serving.handlers import guard as guards
from millstream_serving.handlers.guard import OVERDUE, Guard


async def test_what_is_done_in_time_is_returned_and_what_fails_is_raised() -> None:
    guard = Guard()
    assert await guard.call(lambda: 7, 10.0) == 7
    with pytest.raises(ZeroDivisionError):
        await guard.call(lambda: 1 // 0, 10.0)
    assert await guard.call(lambda: 8, 10.0) == 8


async def test_runs_do_not_overlap_and_waiting_counts() -> None:
    guard, running, most = Guard(), 0, 0

    def work() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        running -= 1
        return "done"

    # The first has time enough, however long its thread waits for a core.
    found = await asyncio.gather(guard.call(work, 60.0), *(guard.call(work, 0.5) for _ in range(39)))
    assert most == 1
    assert 1 <= found.count("done") < 40, "two seconds of work, half a second of patience"
    assert found.count("done") + found.count(None) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
async def test_a_run_gives_way_from_when_it_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, begun, go_on, ended = Guard(), threading.Event(), threading.Event(), threading.Event()
    niceness, beside = [], guards._beside

    def work() -> None:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        begun.set()
        go_on.wait(30)
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        ended.set()

    def under_way(*asked: Any) -> Any:
        """Nobody is overdue before he has had a core."""
        made = beside(*asked)
        assert begun.wait(30)
        return made

    monkeypatch.setattr(guards, "_beside", under_way)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert await guard.call(work, 0.05) is None
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 30)
    assert niceness == [own, max(own, OVERDUE)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own, "who answers does not give way"


async def test_whoever_goes_away_leaves_a_guard_that_still_works() -> None:
    guard, go_on = Guard(), threading.Event()
    gone = asyncio.create_task(guard.call(lambda: go_on.wait(30), 60.0))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await guard.call(lambda: 7, 0.05) is None, "the run that was left is still under way"
    go_on.set()
    async with asyncio.timeout(30):
        while await guard.call(lambda: 7, 10.0) is None:  # noqa: ASYNC110  (a thread ends when it does)
            await asyncio.sleep(0.005)


def test_a_process_does_not_wait_for_a_run_that_hangs() -> None:
    hangs = """
import asyncio, time
from millstream_serving.handlers.guard import Guard
print(asyncio.run(Guard().call(lambda: time.sleep(600), 0.05)))
"""
    ended = subprocess.run([sys.executable, "-c", hangs], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "None\n"), ended.stderr
