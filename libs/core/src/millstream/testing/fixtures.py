"""Pytest fixtures for tests against real servers; a test that asks for one is marked `connected` by itself."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.kafka_guard import Guard, GuardedKafka
from millstream.testing.mlflow import EmbeddedMlflow
from millstream.testing.s3 import EmbeddedS3
from millstream.testing.valkey import EmbeddedValkey
from millstream.testing.valkey_cluster import EmbeddedValkeyCluster

CONNECTED = {
    "kafka",
    "valkey",
    "valkey_url",
    "valkey_cluster",
    "valkey_cluster_url",
    "mlflow_server",
    "s3",
    "guarded_kafka",
}
"""Fixtures behind which a server runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the users of real servers, so that `-m "not connected"` leaves none of them in."""
    for item in items:
        if isinstance(item, pytest.Function) and CONNECTED.intersection(item.fixturenames):
            item.add_marker(pytest.mark.connected)


@pytest.fixture(scope="session")
def stack_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and logs of this session's servers (of this worker's, under xdist)."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def kafka(stack_dir: Path) -> Iterator[EmbeddedKafka]:
    """A Kafka for the whole session. A test that stops or pauses it starts or resumes it again."""
    with EmbeddedKafka(stack_dir / "kafka").running() as server:
        yield server


@pytest.fixture(scope="session")
def guarded_kafka(stack_dir: Path) -> Iterator[GuardedKafka]:
    """One for the whole session that asks who is there."""
    from millstream.testing.certificates import (
        Authority,  # imported here: whoever only uses Kafka needs no cryptography
    )

    authority = Authority(stack_dir / "certificates")
    certificate, key = authority.certificate("broker")
    guard = Guard(user="mill", password="tide&weir 7", ca=authority.ca, certificate=certificate, key=key)
    with EmbeddedKafka(stack_dir / "guarded-kafka", guard=guard).running() as server:
        yield GuardedKafka(ports=server.guarded[0], bootstrap=server.bootstrap, guard=guard, authority=authority)


@pytest.fixture(scope="session")
def valkey(stack_dir: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey for the whole session. A test that stops or pauses it starts or resumes it again."""
    with EmbeddedValkey(stack_dir / "valkey").running() as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server(stack_dir: Path) -> Iterator[EmbeddedMlflow]:
    """An MLflow for the whole session."""
    with EmbeddedMlflow(stack_dir / "mlflow").running() as server:
        yield server


@pytest.fixture(scope="session")
def s3(stack_dir: Path) -> Iterator[EmbeddedS3]:
    """An S3 for the whole session. Make a bucket of your own."""
    with EmbeddedS3(stack_dir / "s3").running() as server:
        yield server


@pytest.fixture
def valkey_url(valkey: EmbeddedValkey) -> str:
    """The session's Valkey, emptied for this test."""
    valkey.flush()
    return valkey.url


@pytest.fixture(scope="session")
def valkey_cluster(stack_dir: Path) -> Iterator[EmbeddedValkeyCluster]:
    """Three masters and three replicas for the whole session. A test that kills one heals the cluster again."""
    with EmbeddedValkeyCluster(stack_dir / "valkey-cluster").running() as cluster:
        yield cluster


@pytest.fixture
def valkey_cluster_url(valkey_cluster: EmbeddedValkeyCluster) -> str:
    """The session's Valkey Cluster, emptied for this test."""
    valkey_cluster.flush()
    return valkey_cluster.url


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """Names nobody else uses, e.g. `flights-departed-3f2a91c0`: for topics and consumer groups of one test."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topic_name(unique_name: Callable[[str], str]) -> str:
    """A topic name for this test; the topic itself is not created."""
    return unique_name("topic")
