"""The same departures through Quix Streams: four views, the tumbling pieces of our windows, in its own environment."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from workload import fill, project

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream_cli.topics import topics_of

QUIX = "quixstreams==3.28.1"
ROOT = Path(__file__).parents[2]
WITHIN = 900
"""Seconds for one run; 100,000 events took 30 to 60."""


def quix(events: int) -> float:
    """Events a second, from the first window that was updated to the last. Raises RuntimeError when the peer fails."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        root = Path(name)
        kafka = EmbeddedKafka(root / "kafka", log_dir=root / "logs")
        with kafka.running():
            asyncio.run(_fill(root, kafka, events))
            uv = shutil.which("uv") or str(ROOT / ".millstream/uv/bin/uv")
            worker = Path(__file__).with_name("quix_worker.py")
            run = [uv, "run", "--no-project", "--python", "3.11", "--with", QUIX, "python", str(worker)]
            done = subprocess.run(
                [*run, kafka.bootstrap, str(root / "state"), str(events)],
                capture_output=True,
                text=True,
                timeout=WITHIN,
            )
            if done.returncode:
                raise RuntimeError(f"{QUIX}: {done.stderr[-2_000:]}")
            return round(events / json.loads(done.stdout.splitlines()[-1])["seconds"])


async def _fill(root: Path, kafka: EmbeddedKafka, events: int) -> None:
    path = project(root / "project", two_slides=False)
    await ensure_topics(kafka.bootstrap, topics_of(load_project(path), partitions=1))
    await fill(kafka.bootstrap, events, headers=False)
