"""A recording: events of the past with the time at which each became known. `recording.py` of a project makes one.

It has a function `recording()` that returns the events, and may have `SCORED_FROM` (RFC 3339: answers to earlier questions are
not scored) and `TIME_ZONE` (IANA name: in which months are counted). It may import modules that lie beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from millstream.contracts.times import from_rfc3339
from millstream.project import Project
from millstream_cli.errors import CommandFailed


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Events of the past, and how a summary of their replay is to be read."""

    events: Mapping[str, pl.DataFrame]
    """Stream → its events; column `known_at` (int64 µs, UTC) says when each became known, the other columns are the event."""
    scored_from: int | None = None
    """Questions asked before (microseconds) are not scored."""
    time_zone: str = "UTC"


def load_recording(project: Project) -> Recording:
    """Run the project's `recording.py` and check what it returns. Raises CommandFailed."""
    path = project.path / "recording.py"
    if not path.is_file():
        raise CommandFailed(
            f"{path}: not there. A replay needs a function recording() that returns "
            "{stream: polars.DataFrame with a known_at column (int64 microseconds) and the event's fields}"
        )
    spec = importlib.util.spec_from_file_location("millstream_recording", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with _importing_from(project.path):
            spec.loader.exec_module(module)
            found: dict[str, pl.DataFrame] = module.recording()
        since: str | None = getattr(module, "SCORED_FROM", None)
        scored_from = None if since is None else from_rfc3339(since)
        time_zone = ZoneInfo(getattr(module, "TIME_ZONE", "UTC")).key
    except Exception as error:
        raise CommandFailed(f"{path}: {type(error).__name__}: {error}") from error
    for stream, events in found.items():
        if stream not in project.streams:
            raise CommandFailed(f"{path}: no stream {stream!r} in streams/; found: {', '.join(project.streams)}")
        if events.schema.get("known_at") != pl.Int64:
            raise CommandFailed(
                f"{path}: {stream}: known_at must be Int64 microseconds, is {events.schema.get('known_at')}"
            )
    ordered = {stream: events.sort("known_at", maintain_order=True) for stream, events in found.items()}
    return Recording(events=ordered, scored_from=scored_from, time_zone=time_zone)


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Modules of `folder` can be imported, and are forgotten afterwards: another project may have one of the same name."""
    home = folder.resolve()
    before = set(sys.modules)
    sys.path.insert(0, str(home))
    try:
        yield
    finally:
        sys.path.remove(str(home))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and home in Path(file).parents:
                del sys.modules[name]
