"""Kafka lets only its users in: real processes and commands with a password within TLS, and what they say without."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from millstream.testing.kafka_guard import GuardedKafka
from millstream.testing.ports import free_port
from millstream_tiles.lake import Lake

PARCELS = """\
stream: parcels-guarded
description: A parcel was sent.
key: parcel
time: sent_at
partitions: 1
schema:
  type: object
  required: [parcel, sent_at]
  properties: {parcel: {type: string}, sent_at: {type: string, format: date-time}}
"""
STORE = """\
project: parcels
provider: local
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""
DEFINITIONS = """\
from datetime import timedelta

from feast import Entity
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import stream_source

HOUR = timedelta(hours=1)
parcel = Entity(name="parcel")
sent = StreamFeatureView(
    name="sent", entities=[parcel], source=stream_source("../streams/parcels.yaml"), timestamp_field="sent_at",
    aggregations=[Aggregation(column="*", function="count", name="count", time_window=HOUR, slide_interval=HOUR)],
)
"""
WRONG = "weir&tide 8"

pytestmark = pytest.mark.timeout(400)  # a Kafka, two services and two commands, one after the other


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for file, text in {
        "streams/parcels.yaml": PARCELS,
        "features/feature_store.yaml": STORE,
        "features/definitions.py": DEFINITIONS,
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    (folder / "loops").mkdir()
    return folder


async def ended(*command: str, env: Mapping[str, str]) -> tuple[int | None, str, str]:
    """Exit status and what was said, of a command or of a service that does not start."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        env=os.environ | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(), 120)
    return child.returncode, out.decode(), err.decode()


@asynccontextmanager
async def service(name: str, env: Mapping[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"millstream_{name}"), env=os.environ | env | {"MILLSTREAM_PORT": str(port)}
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def answer_with(client: httpx.AsyncClient, status: int, text: str = "", *, within: float = 120) -> httpx.Response:
    """What /readyz says once it says that. Raises TimeoutError."""
    async with asyncio.timeout(within):  # a service imports Feast first, on two busy cores
        while True:
            try:
                answer = await client.get("/readyz")
                if answer.status_code == status and text in answer.text:
                    return answer
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def test_a_parcel_goes_from_ingest_to_the_lake_within_tls_and_with_a_password(
    guarded_kafka: GuardedKafka, valkey_url: str, project: Path, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text(guarded_kafka.guard.password + "\n")
    entry = guarded_kafka.environment("sasl_ssl")
    entry |= {"MILLSTREAM_KAFKA_PASSWORD": "", "MILLSTREAM_KAFKA_PASSWORD_FILE": str(password)}
    lake = str(tmp_path / "lake")
    env = entry | {"MILLSTREAM_PROJECT": str(project), "MILLSTREAM_VALKEY": valkey_url, "MILLSTREAM_LAKE": lake}

    kafka = ["--kafka", entry["MILLSTREAM_KAFKA"]]
    status, out, err = await ended("millstream_cli.main", "topics", "--project", str(project), *kafka, env=entry)
    assert (status, err) == (0, "")
    assert "created" in out
    async with (
        service("ingest", env | {"MILLSTREAM_DATA": str(tmp_path / "ingest")}) as ingest,
        service("features", env | {"MILLSTREAM_DATA": str(tmp_path / "features")}) as features,
    ):
        await answer_with(ingest, 200)
        await answer_with(features, 200)
        sent = await ingest.post(
            "/v1/streams/parcels-guarded/events", json={"parcel": "p1", "sent_at": "2026-01-05T12:00:00Z"}
        )
        assert sent.status_code == 202
        await asyncio.to_thread(Lake(lake).wait_for, "parcels-guarded", "features-lake", {0: 0}, timeout=60)

    status, out, err = await ended("millstream_cli.main", "dlq", "list", *kafka, env=entry)
    assert (status, err) == (0, "")


async def test_who_has_a_wrong_password_is_told_and_so_is_the_person_at_the_command_line(
    guarded_kafka: GuardedKafka, valkey_url: str, project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = guarded_kafka.environment("sasl_ssl") | {"MILLSTREAM_KAFKA_PASSWORD": WRONG}
    env = entry | {"MILLSTREAM_PROJECT": str(project), "MILLSTREAM_VALKEY": valkey_url}
    async with service("ingest", env | {"MILLSTREAM_DATA": str(tmp_path / "ingest")}) as ingest:
        await answer_with(ingest, 503, "does not let the user 'mill' in: check MILLSTREAM_KAFKA_USER")
    logged = capfd.readouterr()
    assert "does not let the user 'mill' in" in logged.out + logged.err
    assert WRONG not in logged.out + logged.err

    kafka = ["--kafka", entry["MILLSTREAM_KAFKA"]]
    commands = (["topics", "--project", str(project), *kafka], ["keys", "list", *kafka])
    for status, out, err in await asyncio.gather(
        *(ended("millstream_cli.main", *command, env=entry) for command in commands)
    ):
        assert status == 1
        assert out == ""
        assert "does not let the user 'mill' in: check MILLSTREAM_KAFKA_USER and MILLSTREAM_KAFKA_PASSWORD" in err
        assert WRONG not in err


@pytest.mark.parametrize(
    "command", [["millstream_ingest"], ["millstream_cli.main", "dlq", "list", "--kafka", "kafka:9093"]]
)
async def test_what_cannot_work_is_refused_at_the_start_with_exit_status_2(command: list[str], project: Path) -> None:
    env = {"MILLSTREAM_KAFKA_SECURITY": "ssl", "MILLSTREAM_KAFKA_CA": "/no/ca.crt", "MILLSTREAM_PROJECT": str(project)}
    status, _, err = await ended(*command, env=env)

    assert status == 2
    assert err == "millstream: MILLSTREAM_KAFKA_CA: there is no file /no/ca.crt\n"
