"""Kafka is away for real, and questions come over HTTP: refused or answered as their loop says, and told what was lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from millstream.runtime.service import Service
from millstream.testing.kafka import EmbeddedKafka
from millstream_serving.adapters.kafka_log import MOST_BYTES

from .conftest import LOOP, flight
from .serving_process import in_memory
from .test_serving_connected import Town, eventually, running, town, until  # noqa: F401  (the fixture)
from .test_serving_log import on_record

LONG = "x" * 900_000
"""A carrier's name that fills a record: some forty of them fill the buffer."""
COUNTED = "millstream_predictions_unlogged_total"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One of its own: who reads the session's from its beginning need not read 64 MiB of these answers."""
    with EmbeddedKafka(tmp_path_factory.mktemp("away")).running() as server:
        yield server


def lost(service: Service, loop: str) -> float:
    return service.registry.get_sample_value(COUNTED, {"loop": loop}) or 0.0


@asynccontextmanager
async def away(kafka: EmbeddedKafka, how: str) -> AsyncIterator[None]:
    """Frozen with its connections open, or gone with them."""
    (kafka.pause if how == "frozen" else kafka.kill9)()
    try:
        yield
    finally:
        (kafka.resume if how == "frozen" else kafka.start)()


@pytest.mark.timeout(300)  # a broker that was killed starts again
@pytest.mark.parametrize("how", ["frozen", "gone"])
async def test_without_kafka_a_loop_refuses_or_answers_as_it_says_and_after_it_all_is_as_before(
    town: Town,  # noqa: F811
    kafka: EmbeddedKafka,
    how: str,
) -> None:
    refusing = replace(town, loop=f"{town.loop}-strict")
    second = town.settings.project / "loops/second.yaml"
    second.write_text(LOOP.format(loop=refusing.loop, stream=town.stream))
    for one in (town, refusing):
        await one.promote(1, one.package(f"1-{one.loop}"))
    service = in_memory(town.settings.model_copy(update={"doors": "http"}), town.runtime)
    answered: dict[str, set[str]] = {town.loop: set(), refusing.loop: set()}
    """By loop, the ids of what was answered."""
    async with running(service) as http:

        async def asked(loop: str, **said: Any) -> httpx.Response:
            reply = await http.post(f"/v1/loops/{loop}/predict", json={"event": flight(len(answered[loop]), **said)})
            if reply.status_code == 200:
                answered[loop].add(reply.json()["prediction_id"])
            return reply

        async def taken(loop: str) -> bool:
            return (await asked(loop)).status_code == 200

        for loop in answered:
            await until(http, f"/v1/loops/{loop}", lambda shown: shown["revision"] == 1)
            await eventually(lambda loop=loop: taken(loop))  # type: ignore[misc]
        async with away(kafka, how):

            async def refused() -> bool:
                reply = await asked(refusing.loop)
                if reply.status_code == 503:
                    assert reply.json()["error"] == "not_logged", reply.text
                return reply.status_code == 503

            await eventually(refused)
            assert (await asked(refusing.loop)).status_code == 503, "and so it goes on"
            assert (await asked(town.loop)).status_code == 200, "the other loop answers anyway"
            assert lost(service, town.loop) == 0, "as long as it can be remembered nothing is lost"
            while not lost(service, town.loop):
                assert (await asked(town.loop, carrier=LONG)).status_code == 200
                assert len(answered[town.loop]) < 2 * MOST_BYTES / len(LONG), "the buffer has no end"
            assert lost(service, refusing.loop) == 0

        await eventually(lambda: taken(refusing.loop))
        before = lost(service, town.loop)
        assert (await asked(town.loop)).status_code == 200
        assert lost(service, town.loop) == before, "as before"

        async def kept() -> bool:
            return not service.registry.get_sample_value("millstream_prediction_log_bytes")

        await eventually(kept)
        assert await on_record(refusing) == answered[refusing.loop]
        missing = answered[town.loop] - await on_record(town)
        assert len(missing) == lost(service, town.loop) > 0, "what is on no record is what was counted"
