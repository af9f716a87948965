"""The same departures through other stream processors: four views, the tumbling pieces of our windows.

Each has an environment of its own: Quix Streams and Bytewax come by uv, Kafka Streams as pinned jars, compiled by Eclipse's
compiler, which is one of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from workload import fill, project

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.cache import cache_folder
from millstream.testing.jars import fetched, listed
from millstream.testing.java import find_java
from millstream.testing.kafka import EmbeddedKafka
from millstream_cli.topics import topics_of

HERE = Path(__file__).parent
WITHIN = 900
"""Seconds for one run; 100,000 events took Quix 30 to 60."""

Command = Callable[[Path], list[str]]
"""What runs a peer, given a folder that it may write to. Arguments follow: Kafka, a folder for state, the number of events."""


def peer(name: str, events: int) -> float:
    """Events a second, from the first window that was updated to the last. Raises RuntimeError when the peer fails."""
    with TemporaryDirectory(prefix="millstream-bench-") as folder:
        root = Path(folder)
        command = PEERS[name](root)
        kafka = EmbeddedKafka(root / "kafka", log_dir=root / "logs")
        with kafka.running():
            asyncio.run(_fill(root, kafka, events))
            done = subprocess.run(
                [*command, kafka.bootstrap, str(root / "state"), str(events)],
                capture_output=True,
                text=True,
                timeout=WITHIN,
            )
            if done.returncode:
                raise RuntimeError(f"{name}: {done.stderr[-2_000:]}")
            return round(events / json.loads(done.stdout.splitlines()[-1])["seconds"])


async def _fill(root: Path, kafka: EmbeddedKafka, events: int) -> None:
    path = project(root / "project", two_slides=False)
    await ensure_topics(kafka.bootstrap, topics_of(load_project(path), partitions=1))
    await fill(kafka.bootstrap, events, headers=False)


def _python(package: str, worker: str) -> Command:
    def command(_: Path) -> list[str]:
        uv = shutil.which("uv") or str(HERE.parents[1] / ".millstream/uv/bin/uv")
        return [uv, "run", "--no-project", "--python", "3.11", "--with", package, "python", str(HERE / worker)]

    return command


def _kafka_streams(root: Path) -> list[str]:
    jars = listed((HERE / "kafka_streams_jars.txt").read_text())
    there = fetched("Kafka Streams", "95 MB", jars, cache_folder() / "kafka-streams-4.2.1" / "jars", print)
    java, path = str(find_java().path), os.pathsep.join(map(str, there))
    (compiler,) = (str(jar) for jar in there if jar.name.startswith("ecj-"))
    source = str(HERE / "KafkaStreamsWorker.java")
    subprocess.run(
        [java, "-jar", compiler, "-17", "-proc:none", "-nowarn", "-cp", path, "-d", str(root), source], check=True
    )
    return [java, "-Xmx1g", "-cp", f"{root}{os.pathsep}{path}", "KafkaStreamsWorker"]


FEWER = {"quix": 20, "bytewax": 20, "kafka_streams": 5}
"""By how much fewer events a peer is given: those in Python take as long as ours with a twentieth, a JVM has to warm up."""

PEERS: dict[str, Command] = {
    "quix": _python("quixstreams==3.28.1", "quix_worker.py"),
    "bytewax": _python("bytewax[kafka]==0.21.1", "bytewax_worker.py"),
    "kafka_streams": _kafka_streams,
}
