"""Serving with two workers in processes of their own: one port for HTTP, one for gRPC, one group, and both obey."""

from __future__ import annotations

from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from millstream.contracts.events import PredictionServed, ReplicaObeyed
from millstream.testing.ports import free_port

from .conftest import flight
from .test_serving_connected import Town, eventually, town  # noqa: F401
from .test_serving_grpc import Line
from .test_serving_process import said
from .test_serving_replicas import replica

FRESH = [("grpc.use_local_subchannel_pool", 1)]
"""A connection of its own for each channel."""


def counted(text: str, name: str) -> dict[str, float]:
    """Worker → sum."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == name:
                found[one.labels["worker"]] = found.get(one.labels["worker"], 0.0) + one.value
    return found


@pytest.mark.timeout(300)  # processes that start on cores which others have too: 70 s where six did
async def test_two_workers_are_one_service_and_two_replicas(
    town: Town,  # noqa: F811
    tmp_path: Path,
) -> None:
    await town.promote(1, town.package("1"))
    port, grpc_port = free_port(), free_port()
    made = replica(
        town, "mill", port, tmp_path / "mill.log", MILLSTREAM_WORKERS="2", MILLSTREAM_GRPC_PORT=str(grpc_port)
    )
    url = f"http://127.0.0.1:{port}"
    answered = "millstream_predictions_served_total"

    async def predict(number: int) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as http:  # a connection each, so that either may take it
            return await http.post(f"{url}/v1/loops/{town.loop}/predict", json={"event": flight(number)})

    async def metrics() -> str:
        async with httpx.AsyncClient(timeout=30) as http:
            return (await http.get(f"{url}/metrics")).text

    try:
        made.launch()
        ready = await said(url, lambda answer: answer.status_code == 200)
        assert ready.json() == {"ready": True, "missing": {}}
        asked = 0

        async def both_have_answered() -> bool:
            nonlocal asked
            asked += 1
            assert (await predict(asked)).status_code == 200
            return counted(await metrics(), answered).keys() == {"0", "1"}

        await eventually(both_have_answered)
        for number in range(asked + 1, asked + 21):
            await town.ask(flight(number))
        asked += 20
        found = await town.answers(asked)
        assert len({one.id for one in found if isinstance(one, PredictionServed)}) == asked, "each has one answer"
        assert counted(await metrics(), answered).keys() == {"0", "1"}

        for _ in range(4):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options=FRESH) as channel:
                line = Line(channel)
                assert (await line.call("ServerReady")).ready
                assert (await line.call("ModelReady", name=town.loop)).ready

        await town.promote(2, town.package("2"))
        obeying: set[str] = set()

        def both_obey(word: ReplicaObeyed) -> bool:
            if word.revision == 2:
                obeying.add(word.instance)
            return len(obeying) == 2

        await town.replicas(until=both_obey)
        assert obeying == {"mill-0", "mill-1"}
        versions = [(await predict(asked + number)).json()["version"] for number in range(1, 11)]
        assert set(versions) == {"2"}
    finally:
        made.terminate(60)
    assert made.returncode == 0
