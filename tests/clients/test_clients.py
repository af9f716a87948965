"""Feast's Go SDK (v0.9.4), Java client (0.38.0), Python client and plain HTTP ask one features service: one answer.

The service is a process of its own on a real Kafka and a real Valkey, with the flights of the example. The two programs
are built by `make test-clients`; without them their tests are skipped."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from feast import FeatureStore
from feast import __version__ as feast_version

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics, stream_topics
from millstream.testing.errors import ToolMissing
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey
from millstream.testing.waiting import wait_until
from millstream_features.subscribers import LAKE, TILES
from millstream_tiles import open_store

from . import programs

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
MENDS = "run: make test-clients (it builds it, once)"
ONE_NAME_EACH = [
    "origin_departures:flights_1h",
    "origin_departures:mean_delay_1h",
    "carrier_departures:mean_delay_24h",
    "origin_carrier_departures:mean_delay_3h",
    "aircraft_departures:last_delay",
]
"""The Java client cannot ask for full names."""
SHARED_NAMES = [
    "origin_departures:mean_delay_1h",
    "origin_departures:mean_delay_3h",
    "carrier_departures:mean_delay_3h",
]
ROWS = [
    {"origin": "JFK", "carrier": "B6", "tailnum": "N708JB"},
    {"origin": "LGA", "carrier": "DL", "tailnum": "Nº 9, 東京"},
    {"origin": "SFO", "carrier": "B6", "tailnum": "nobody"},
]
DEPARTURES = [("JFK", "B6", "N708JB", 12.5), ("JFK", "B6", "N708JB", -3.0), ("LGA", "DL", "Nº 9, 東京", 1 / 3)]

Asker = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """One features process, and what its store says to Feast's Python client."""

    http: int
    grpc: int
    store: FeatureStore

    def python(self, features: list[str], *, full: bool) -> list[dict[str, Any]]:
        found = self.store.get_online_features(features, ROWS, full_feature_names=full).to_dict()
        return [{name: column[row] for name, column in found.items()} for row in range(len(ROWS))]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("clients")
    with (
        EmbeddedKafka(folder / "kafka").running() as kafka,
        EmbeddedValkey(folder / "valkey").running() as valkey,
    ):
        store = open_store(FLIGHTS / "features", online={"url": valkey.url}, offline={"lake": str(folder / "lake")})
        ports = Service(http=free_port(), grpc=free_port(), store=store)
        settings = {
            "MILLSTREAM_KAFKA": kafka.bootstrap,
            "MILLSTREAM_VALKEY": valkey.url,
            "MILLSTREAM_PROJECT": str(FLIGHTS),
            "MILLSTREAM_LAKE": str(folder / "lake"),
            "MILLSTREAM_DATA": str(folder / "data"),
            "MILLSTREAM_PORT": str(ports.http),
            "MILLSTREAM_GRPC_PORT": str(ports.grpc),
        }
        asyncio.run(_depart(kafka.bootstrap))
        process = ManagedProcess(
            "features",
            [sys.executable, "-m", "millstream_features"],
            log=folder / "features.log",
            ready=partial(_flights, ports.http, at_least=0),
            ready_within=120,
            env=os.environ | settings,
        )
        process.start()
        try:
            wait_until(partial(_flights, ports.http, at_least=2), within=60, what="the departures, applied")
            yield ports
        finally:
            process.terminate()


async def _depart(kafka: str) -> None:
    """Some minutes ago, so whoever asks now, or a minute later, has them in every window."""
    for name, stream in load_project(FLIGHTS).streams.items():
        await ensure_topics(kafka, stream_topics(name, stream.partitions, timedelta(days=7), [TILES, LAKE]))
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for number, (origin, carrier, tailnum, delay) in enumerate(DEPARTURES):
            left = datetime.now(UTC) - timedelta(minutes=5 - number)
            flight = {"flight_id": f"F{number}", "departed_at": left.isoformat(), "dest": "LAX", "dep_delay": delay}
            keys = {"origin": origin, "carrier": carrier, "tailnum": tailnum}
            await producer.send_and_wait("flights-departed", json.dumps(flight | keys).encode())


def _post(port: int, features: list[str], **more: Any) -> httpx.Response:
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    asked = {"features": features, "entities": columns} | more
    return httpx.post(f"http://127.0.0.1:{port}/get-online-features", json=asked, timeout=10)


def _flights(port: int, *, at_least: int) -> bool:
    """Whether the three departures are counted, or, with 0, whether reads are answered."""
    try:
        answer = _post(port, ["origin_departures:flights_1h"])
    except httpx.TransportError:
        return False
    counted = answer.status_code == 200 and sum(answer.json()["results"][-1]["values"])
    return answer.status_code == 200 and counted >= (len(DEPARTURES) if at_least else 0)


def run(command: list[str], **question: Any) -> dict[str, Any]:
    said = subprocess.run(command, input=json.dumps(question).encode(), capture_output=True, check=False, timeout=100)
    assert said.returncode == 0, said.stderr.decode()
    answer: dict[str, Any] = json.loads(said.stdout)
    return answer


@pytest.fixture
def go() -> Asker:
    if not programs.go_program().exists():
        pytest.skip(f"no program of Feast's Go SDK here; {MENDS}")
    return partial(run, [str(programs.go_program())])


@pytest.fixture
def java() -> Asker:
    if not programs.java_classes().is_dir():
        pytest.skip(f"no program of Feast's Java client here; {MENDS}")
    try:
        return partial(run, programs.java_command())
    except ToolMissing as error:
        pytest.skip(str(error))


def only(answer: list[dict[str, Any]], names: list[str]) -> list[list[Any]]:
    return [[row[name] for name in names] for row in answer]


def short(features: list[str]) -> list[str]:
    return [one.split(":")[1] for one in features]


def test_what_is_asked_for_is_there(service: Service) -> None:
    """Else all would agree on nothing."""
    found = only(service.python(ONE_NAME_EACH, full=False), short(ONE_NAME_EACH))

    assert found == [[2, 4.75, 4.75, 4.75, -3.0], [1, 1 / 3, 1 / 3, 1 / 3, 1 / 3], [0, None, 4.75, None, None]]


def test_http_says_what_python_says(service: Service) -> None:
    answer = _post(service.http, ONE_NAME_EACH).json()

    columns = dict(zip(answer["metadata"]["feature_names"], (one["values"] for one in answer["results"]), strict=True))
    rows = [{name: column[row] for name, column in columns.items()} for row in range(len(ROWS))]
    names = short(ONE_NAME_EACH)
    assert only(rows, names) == only(service.python(ONE_NAME_EACH, full=False), names)


@pytest.mark.parametrize("features", [ONE_NAME_EACH, SHARED_NAMES], ids=["one name each", "shared names"])
@pytest.mark.parametrize("project", ["", "flights"], ids=["any project", "its project"])
def test_the_go_sdk_says_what_python_says(service: Service, go: Asker, features: list[str], project: str) -> None:
    said = go(port=service.grpc, features=features, rows=ROWS, project=project)

    assert "error" not in said, said
    assert said["version"] == feast_version
    full = [one.replace(":", "__") for one in features]
    assert only(said["values"], features) == only(service.python(features, full=True), full)
    assert only(said["values"], list(ROWS[0])) == [list(row.values()) for row in ROWS]
    assert {state for row in said["statuses"] for state in row.values()} == {"PRESENT"}


def test_the_go_sdk_asks_about_another_time(service: Service, go: Asker) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    said = go(port=service.grpc, features=ONE_NAME_EACH, rows=ROWS[:1], as_of=yesterday)

    assert said["statuses"][0]["origin_departures:flights_1h"] == "OUTSIDE_MAX_AGE"
    assert said["values"][0]["origin_departures:flights_1h"] is None


def test_the_java_client_says_what_python_says(service: Service, java: Asker) -> None:
    said = java(port=service.grpc, features=ONE_NAME_EACH, rows=ROWS)

    assert "error" not in said, said
    assert said["version"] == feast_version
    names = short(ONE_NAME_EACH)
    assert only(said["values"], names) == only(service.python(ONE_NAME_EACH, full=False), names)
    assert {state for row in said["statuses"] for state in row.values()} == {"PRESENT"}


@pytest.mark.parametrize("client", ["go", "java"])
def test_a_refusal_reaches_who_asked(service: Service, request: pytest.FixtureRequest, client: str) -> None:
    ask: Asker = request.getfixturevalue(client)
    for features, said in (
        (["nothing:x"], "unknown_feature: "),
        (["origin_departures:x"], "bad_question: "),
    ):
        assert said in ask(port=service.grpc, features=features, rows=ROWS)["error"]


def test_the_go_sdk_hears_what_is_wrong_with_its_rows(service: Service, go: Asker) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"project": "trains"}, "bad_question: project 'trains' is not here; this service has 'flights'"),
        ({"rows": []}, "bad_body: entities: 0 rows; ask for 1 to 1000"),
        ({"rows": [*ROWS[:1], {"origin": "JFK"}]}, "bad_entities: entities: row 1 has ['origin'], row 0 has ["),
    ]
    for asked, said in wrong:
        answer = go(**{"port": service.grpc, "features": ONE_NAME_EACH, "rows": ROWS} | asked)
        assert said in answer["error"]
