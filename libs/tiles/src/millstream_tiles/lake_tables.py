"""What a lake holds: its tables, and of each the rows, files, newest event and positions, without reading a row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import FileSelector, FileType, PyFileSystem

from millstream_tiles.errors import LakeUnavailable
from millstream_tiles.lake import Lake
from millstream_tiles.lake_storage import Unavailable
from millstream_tiles.lake_upkeep import TARGET


@dataclass(frozen=True, kw_only=True)
class TableState:
    """One table at one moment."""

    stream: str
    rows: int
    files: int
    small_files: int
    """Files that a compaction would look at."""
    dates: int
    bytes: int
    """Of the files in use; those that wait for a vacuum come on top."""
    newest_event: datetime | None
    newest_known_at: datetime | None
    positions: dict[int, int]
    """Last offset of each partition that has a row."""
    version: int


def streams_of(lake: Lake) -> list[str]:
    """The tables that the lake has, by name. Raises LakeUnavailable, also for a folder that is not there."""
    if not lake.storage.remote:
        try:
            folders = Path(lake.uri.removeprefix("file://")).iterdir()
            return sorted(folder.name for folder in folders if (folder / "_delta_log").is_dir())
        except OSError as error:
            raise LakeUnavailable(
                f"no lake at {lake.uri} ({error.strerror}); name a folder or s3://bucket/prefix"
            ) from error
    from deltalake.fs import DeltaStorageHandler

    with Unavailable(lake.storage, lake.uri, "listed"):
        files = PyFileSystem(DeltaStorageHandler(lake.uri, options=lake.storage.options))
        found = files.get_file_info(FileSelector("", recursive=False))
    names = [info.base_name for info in found if info.type == FileType.Directory]
    return sorted(name for name in names if lake.table(name) is not None)


def state_of(lake: Lake, stream: str, group: str) -> TableState | None:
    """The stream's table and how far consumer group `group` brought it; None without one. Raises LakeUnavailable."""
    table = lake.table(stream)
    if table is None:
        return None
    with Unavailable(lake.storage, stream, "read"):
        files = pa.table(table.get_add_actions(flatten=True))
    if not len(files):
        return TableState(
            stream=stream, rows=0, files=0, small_files=0, dates=0, bytes=0, newest_event=None, newest_known_at=None,
            positions={}, version=table.version(),
        )  # fmt: skip
    highest = pc.max(files["max._partition"]).as_py()
    return TableState(
        stream=stream,
        rows=pc.sum(files["num_records"]).as_py(),
        files=len(files),
        small_files=pc.sum(pc.less(files["size_bytes"], TARGET)).as_py(),
        dates=pc.count_distinct(files["partition._date"]).as_py(),
        bytes=pc.sum(files["size_bytes"]).as_py(),
        newest_event=pc.max(files["max._event_time"]).as_py(),
        newest_known_at=pc.max(files["max._known_at"]).as_py(),
        positions=lake.positions(stream, group, range(highest + 1)),
        version=table.version(),
    )
