"""Formats a broker's data folder with files that Kafka's own tool made once per machine."""

import base64
import os
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from millstream.testing.cache import one_at_a_time
from millstream.testing.jars import kafka_folder
from millstream.testing.jvm import KafkaJvm

CHECKPOINT = "bootstrap.checkpoint"
META = "meta.properties"


def new_id() -> str:
    """A random id as Kafka writes them: 16 bytes in URL-safe base64 without padding, no leading dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def is_formatted(data: Path) -> bool:
    """Whether a broker has been formatted here."""
    return (data / META).exists()


def format_broker(data: Path, *, node: int, cluster: str, jvm: KafkaJvm, log_config: Path) -> None:
    """Make `data` the empty folder of broker `node` of `cluster`.

    `kafka.tools.StorageTool format` starts a JVM (0.8 s) to write two files. The one with Kafka's feature levels is the
    same for every cluster of a version, so the tool makes it once and it is copied; the other holds three ids.
    """
    data.mkdir(parents=True, exist_ok=True)
    (data / CHECKPOINT).write_bytes(_checkpoint(jvm, log_config))
    # Last and by rename: a folder with META is a formatted one.
    draft = data / f"{META}.draft"
    draft.write_text(f"version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={new_id()}\n")
    draft.replace(data / META)


def format_with_users(config: Path, users: Sequence[str], cluster: str, *, jvm: KafkaJvm, log_config: Path) -> None:
    """The same by the tool itself, for a broker that knows users from its first start on: their passwords lie in the folder."""
    jvm.run_tool("kafka.tools.StorageTool", "format", "-t", cluster, "-c", config, *users, log_config=log_config)


def _checkpoint(jvm: KafkaJvm, log_config: Path) -> bytes:
    cached = kafka_folder() / CHECKPOINT
    if not cached.exists():
        with one_at_a_time(kafka_folder() / "format.lock", "formats a Kafka folder"):
            if not cached.exists():
                _make_checkpoint(cached, jvm, log_config)
    return cached.read_bytes()


def _make_checkpoint(cached: Path, jvm: KafkaJvm, log_config: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix="format-") as scratch:
        config = Path(scratch) / "server.properties"
        config.write_text(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:9093\n"
            "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\ncontroller.listener.names=CONTROLLER\n"
            f"log.dirs={scratch}/data\n"
        )
        jvm.run_tool("kafka.tools.StorageTool", "format", "-t", new_id(), "-c", config, log_config=log_config)
        os.replace(Path(scratch) / "data" / CHECKPOINT, cached)
