"""How applying grows with workers and shards, on what cores the machine has: the first line of `apply`, from two partitions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from apply import Applied, watch, worker_of
from workload import STREAM, fill, project

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey
from millstream.testing.valkey_cluster import EmbeddedValkeyCluster
from millstream_cli.topics import topics_of

VARIANTS = ((1, 1, False), (2, 1, False), (2, 2, False), (2, 12, True))
"""Workers, shards, and whether they lie on a cluster of three masters (each with a replica, which works as much again)."""
JOINED = 0.25
"""Share of the events after which both workers have long been at work."""


async def grown(events: int, *, workers: int, shards: int, cluster: bool) -> Applied:
    """Everything is in Kafka before the workers start."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        root = Path(name)
        kafka = EmbeddedKafka(root / "kafka", log_dir=root / "logs")
        with kafka.running(), _store(root, cluster) as (url, stores):
            path = project(root / "project", two_slides=False)
            stream = path / "streams" / f"{STREAM}.yaml"
            stream.write_text(stream.read_text().replace("partitions: 1", "partitions: 2"))
            await ensure_topics(kafka.bootstrap, topics_of(load_project(path)))
            size = await fill(kafka.bootstrap, events, headers=False, partitions=2)
            crew = [worker_of(root, path, kafka.bootstrap, url, number, shards) for number in range(workers)]
            for worker in crew:
                worker.launch()
            try:
                return await watch(kafka, stores, crew, events, size, after=JOINED)
            finally:
                for worker in crew:
                    worker.terminate()


@contextmanager
def _store(root: Path, cluster: bool) -> Iterator[tuple[str, Sequence[ManagedProcess]]]:
    if cluster:
        six = EmbeddedValkeyCluster(root / "cluster")
        with six.running():
            yield six.url, [node.processes[0] for node in six.nodes]
        return
    one = EmbeddedValkey(root / "valkey", None, log_dir=root / "logs")
    with one.running():
        yield one.url, one.processes


if __name__ == "__main__":
    for workers, shards, cluster in VARIANTS:
        found = asyncio.run(grown(int(sys.argv[1]), workers=workers, shards=shards, cluster=cluster))
        print(workers, shards, cluster, found, flush=True)
