"""Two replicas in processes of their own: what trainer says is obeyed by both, and nobody who asks notices."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

import httpx
import pytest

from millstream.contracts.events import PredictionServed, ReplicaObeyed, Step
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess

from .conftest import flight
from .test_serving_connected import Town, eventually, town  # noqa: F401
from .test_serving_process import said


def replica(town: Town, name: str, port: int, log: Path, **more: str) -> ManagedProcess:  # noqa: F811
    script = str(Path(__file__).with_name("serving_process.py"))
    return ManagedProcess(
        name,
        [sys.executable, "-c", f"import runpy; runpy.run_path({script!r}, run_name='__main__')"],
        log=log,
        env={
            "MILLSTREAM_KAFKA": town.bootstrap,
            "MILLSTREAM_PROJECT": str(town.settings.project),
            "MILLSTREAM_PACKAGES": town.settings.packages,
            "MILLSTREAM_INSTANCE": name,
            "MILLSTREAM_PORT": str(port),
            "MILLSTREAM_SESSION_TIMEOUT_MS": "6000",
            "MILLSTREAM_REQUEST_TIMEOUT": "60",
            **more,
        },
    )


@pytest.mark.timeout(300)  # two processes start on cores that others have too
async def test_a_rollback_reaches_both_replicas_while_questions_come_and_none_fails(
    town: Town,  # noqa: F811
    tmp_path: Path,
) -> None:
    old, new = town.package("1"), town.package("2")
    await town.promote(1, new, previous=old, watched=True)
    ports = {name: free_port() for name in ("east", "west")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    replicas = [replica(town, name, port, tmp_path / f"{name}.log") for name, port in ports.items()]
    numbers, done = itertools.count(1), asyncio.Event()
    seen: dict[str, list[tuple[int, str]]] = {name: [] for name in urls}
    """Status and version of each reply."""

    async def caller(http: httpx.AsyncClient, name: str) -> None:
        while not done.is_set():
            event = flight(next(numbers))
            reply = await http.post(f"{urls[name]}/v1/loops/{town.loop}/predict", json={"event": event})
            seen[name].append((reply.status_code, reply.json().get("version", "")))

    async def sender() -> int:
        for count in itertools.count(1):
            await town.ask(flight(next(numbers)))
            if done.is_set():
                return count
            await asyncio.sleep(0.02)
        raise AssertionError("it counts for ever")

    async def answered(version: str, count: int) -> bool:
        return all(sum(found == version for _, found in replies) >= count for replies in seen.values())

    try:
        for process in replicas:
            process.launch()
        for url in urls.values():
            await said(url, lambda answer: answer.status_code == 200)
        async with httpx.AsyncClient(timeout=60) as http, asyncio.TaskGroup() as tasks:
            for name in (*urls, *urls):
                tasks.create_task(caller(http, name))
            sending = tasks.create_task(sender())
            await eventually(lambda: answered("2", 20))
            await town.promote(2, old, step=Step.ROLLED_BACK)
            obeying: set[str] = set()

            def both_obey(word: ReplicaObeyed) -> bool:
                if word.revision == 2:
                    obeying.add(word.instance)
                return obeying == urls.keys()

            await town.replicas(until=both_obey)
            before = {name: len(replies) for name, replies in seen.items()}
            await eventually(lambda: answered("1", 20))
            done.set()
        assert {status for replies in seen.values() for status, _ in replies} == {200}
        for name, replies in seen.items():
            # Two callers a replica: each may have been under way when it obeyed.
            assert {version for _, version in replies[before[name] + 2 :]} == {"1"}, "whoever obeys answers by it"
        asked = sum(map(len, seen.values())) + sending.result()
        found = await town.answers(asked)
        assert len({one.id for one in found}) == asked, "every question has one answer"
        assert {one.version for one in found if isinstance(one, PredictionServed)} == {"1", "2"}
        assert all(isinstance(one, PredictionServed) for one in found)
    finally:
        for process in replicas:
            process.terminate()
