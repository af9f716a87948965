"""docker-compose.yml and compose.observability.yml, started: the same commands, variables, paths, users and health checks.

Without Docker: the services are processes of this machine on the embedded servers, MLflow as the file starts it but on SQLite.
What this does not see is the building of images, and what is pulled: Kafka's own start, PostgreSQL, Grafana, the collector and
Jaeger.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.s3 import EmbeddedS3
from millstream.testing.valkey import valkey_binary
from millstream.testing.waiting import wait_until

from .compose_file import ROOT, Service, read_compose
from .compose_mill import ComposeMill
from .span_receiver import SpanReceiver, span_receiver

FIVE = ("ingest", "features", "serving", "drift", "trainer")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    return read_compose("docker-compose.yml", "compose.observability.yml")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not below pytest's own folder, which no other user may enter.
    made = Path(tempfile.mkdtemp(prefix="compose-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def receiver() -> Iterator[SpanReceiver]:
    with span_receiver() as found:
        yield found


@pytest.fixture(scope="module")
def kafka(folder: Path) -> Iterator[EmbeddedKafka]:
    """Its own: a mill has one clock, and the Kafka of all tests knows of later days."""
    with EmbeddedKafka(folder / "kafka").running() as server:
        yield server


@pytest.fixture(scope="module")
def mill(
    services: dict[str, Service], folder: Path, kafka: EmbeddedKafka, receiver: SpanReceiver
) -> Iterator[ComposeMill]:
    valkey_port, mlflow_port = free_port(), free_port()
    listens = services["kafka"].environment["KAFKA_LISTENERS"].partition("PLAINTEXT://:")[2].partition(",")[0]
    servers = {
        ("kafka", int(listens)): kafka.bootstrap,
        ("valkey", 6379): f"127.0.0.1:{valkey_port}",
        ("mlflow", int(_option(services["mlflow"], "--port"))): f"127.0.0.1:{mlflow_port}",
        ("otel-collector", 4318): receiver.endpoint.removeprefix("http://"),
    }
    found = ComposeMill(services, folder, servers)
    beside = [_valkey(services["valkey"], folder, valkey_port), _mlflow(services["mlflow"], folder, mlflow_port)]
    try:
        for server in beside:
            server.launch()
        beside[0].wait_ready()
        found.run("folders")
        found.run("topics")
        for name in FIVE:
            found.start(name)
        for name in FIVE:
            found.healthy(name)
        beside[1].wait_ready()
        yield found
    finally:
        found.stop()
        for server in beside:
            server.terminate(grace=20)


def _option(service: Service, name: str) -> str:
    return next(word.partition("=")[2] for word in service.command if word.startswith(f"{name}="))


def _valkey(service: Service, folder: Path, port: int) -> ManagedProcess:
    program, *options = service.command
    assert program == "valkey-server"
    data = folder / "valkey"
    data.mkdir()
    here = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", ""]

    def ready() -> bool:
        return "Ready to accept connections" in (folder / "logs" / "valkey.log").read_text()

    return ManagedProcess("valkey", [valkey_binary(), *options, *here], log=folder / "logs" / "valkey.log", ready=ready)


def _mlflow(service: Service, folder: Path, port: int) -> ManagedProcess:
    """As the file starts it, on SQLite in place of PostgreSQL."""
    data = folder / "mlflow"
    data.mkdir()
    changed = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--backend-store-uri": f"sqlite:///{data}/mlflow.db",
        "--artifacts-destination": str(data / "artifacts"),
        "--allowed-hosts": f"127.0.0.1:{port}",
    }
    names = [word.partition("=")[0] for word in service.command]
    assert set(changed) <= set(names), f"the file starts MLflow with {names}"
    told = [f"{n}={changed[n]}" if n in changed else word for n, word in zip(names, service.command, strict=True)]
    program = shutil.which("mlflow", path=str(Path(sys.executable).parent))
    assert program is not None

    more = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return ManagedProcess(
        "mlflow",
        [program, *told[1:]],
        log=folder / "logs" / "mlflow.log",
        env=more,
        ready=lambda: _well(f"http://127.0.0.1:{port}/health"),
        ready_within=300,
    )


def _well(url: str) -> bool:
    """False where it says something else, and where it says nothing yet."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_nobody_is_started_before_what_it_waits_for(services: dict[str, Service]) -> None:
    """The order that the fixture has is the file's own: no service waits for one that comes later, or for itself."""
    order: list[str] = []
    left = dict(services)
    while left:
        free = [name for name, service in left.items() if set(service.after) <= set(order)]
        assert free, f"these wait for each other: {sorted(left)}"
        order += free
        for name in free:
            del left[name]
    assert order.index("folders") < order.index("topics") < min(order.index(name) for name in FIVE)
    assert order.index("replay") > max(order.index(name) for name in FIVE)


async def test_what_kafkas_container_is_told_are_settings_that_kafka_has(
    services: dict[str, Service], kafka: EmbeddedKafka
) -> None:
    """The image makes `offsets.topic.replication.factor` of KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR."""
    told = {
        key.removeprefix("KAFKA_").lower().replace("_", "."): value
        for key, value in services["kafka"].environment.items()
    }
    advertised = told["advertised.listeners"].removeprefix("PLAINTEXT://")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "0")])
    finally:
        await admin.close()
    known = {entry[0] for answer in answers for resource in answer.resources for entry in resource[4]}
    assert told.keys() <= known, f"Kafka has no {sorted(told.keys() - known)}"
    for name in FIVE:
        assert services[name].environment["MILLSTREAM_KAFKA"] == advertised


def test_all_five_are_ready_by_their_own_word(mill: ComposeMill) -> None:
    for name in FIVE:
        wait_until(lambda n=name: _well(f"{mill.urls[n]}/readyz"), within=60, what=f"{name} ready")


def test_a_replay_goes_through_and_nobody_writes_beside_the_volumes(
    mill: ComposeMill, folder: Path, receiver: SpanReceiver
) -> None:
    mill.run("replay", "--until=2013-01-02")
    metrics = httpx.get(f"{mill.urls['serving']}/metrics", timeout=60).text
    asked = [line for line in metrics.splitlines() if line.startswith("millstream_records_consumed_total")]
    assert sum(float(line.rpartition(" ")[2]) for line in asked) > 500, asked
    lake = mill.volume("shared") / "lake"
    wait_until(lambda: any(lake.rglob("*.parquet")), within=60, what="rows in the lake, for which no replay waits")
    assert [path for path in (folder / "cwd").rglob("*") if path.is_file()] == [], (
        "a container's own file system is read-only"
    )
    wait_until(
        lambda: (
            {span.service for span in receiver.spans} >= {f"millstream-{name}" for name in FIVE if name != "trainer"}
        ),
        within=30,
        what="spans of the services, sent where compose.observability.yml says",
    )


def test_with_the_s3_file_the_lake_is_in_the_bucket(
    mill: ComposeMill, folder: Path, services: dict[str, Service], s3: EmbeddedS3
) -> None:
    """By moto in MinIO's place. The lake has nothing yet, so it is filled from Kafka's beginning."""
    both = read_compose("docker-compose.yml", "compose.s3.yml")
    assert both["features"].environment["MILLSTREAM_LAKE"] == s3.make_bucket("lake")
    mill.processes["features"].terminate(grace=30)
    beside = ComposeMill(both, folder / "s3", {**mill.servers, ("minio", 9000): s3.url.removeprefix("http://")})
    (folder / "s3").chmod(0o755)
    try:
        beside.run("folders")
        beside.start("features")
        beside.healthy("features")
        wait_until(
            lambda: "flights_scheduled" in _keys(s3) or "flights-scheduled" in _keys(s3),
            within=150,
            what=f"rows in the bucket; {beside.processes['features'].log_tail()}",
        )
    finally:
        beside.stop()


def _keys(s3: EmbeddedS3) -> str:
    return httpx.get(f"{s3.url}/lake?list-type=2", timeout=60).text


def test_mlflow_takes_the_trainers_calls_by_the_name_that_the_file_gives_it(services: dict[str, Service]) -> None:
    host = services["trainer"].environment["MILLSTREAM_MLFLOW"].removeprefix("http://")
    assert host in _option(services["mlflow"], "--allowed-hosts").split(",")


@pytest.mark.parametrize("config", ["prometheus", "alertmanager"])
def test_what_is_mounted_into_prometheus_and_alertmanager_is_what_they_take(
    config: str, services: dict[str, Service], tmp_path: Path
) -> None:
    """By promtool and amtool, with the files laid out as the container sees them."""
    tool = {"prometheus": "promtool", "alertmanager": "amtool"}[config]
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"no {tool} on this machine; Debian's package prometheus or prometheus-alertmanager brings it")
    service = services[config]
    for mount in service.mounts:
        if mount.source.startswith("./"):
            there = tmp_path / mount.target.lstrip("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(ROOT / mount.source)
    file = tmp_path / _option(service, "--config.file").lstrip("/")
    check = {"prometheus": ["check", "config"], "alertmanager": ["check-config"]}[config]
    done = subprocess.run([program, *check, str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    if config == "prometheus":
        assert "rules found" in done.stdout
