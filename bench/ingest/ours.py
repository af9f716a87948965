"""ingest as it is shipped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from door import Door, opened


@contextmanager
def ours(kafka: str, project: Path, port: int, log: Path, **settings: str) -> Iterator[Door]:
    env = {"MILLSTREAM_KAFKA": kafka, "MILLSTREAM_PROJECT": str(project), "MILLSTREAM_PORT": str(port)}
    with opened("ingest", [sys.executable, "-m", "millstream_ingest"], port=port, env=env | settings, log=log) as door:
        yield door
