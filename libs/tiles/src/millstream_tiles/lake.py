"""The lake: every event of every stream, kept for good in one Delta table a stream, appended exactly once.

A commit carries the offsets it stands for (Delta application transactions), so rows and position move together or not at
all: a batch that is repeated after a crash, or by a writer that lost its partition, adds nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError, TableNotFoundError

from millstream_tiles.errors import LakeBehind, LakeSchemaRefused, LakeUnavailable
from millstream_tiles.lake_schema import Clash, clashes, fitted
from millstream_tiles.lake_storage import Storage, Unavailable

ATTEMPTS = 8
"""Commits of other writers that one append gives way to. Two writers of one partition is a rebalance: it is over soon."""

POLL = 0.05
"""Seconds between two looks at a table's log while waiting; a look costs under a millisecond."""

POLL_BUCKET = 0.5
"""The same where a look is a request that takes 20 to 50 ms and is paid for."""


@dataclass(frozen=True, kw_only=True)
class LakeBatch:
    """Rows of one partition up to and including offset `end`. `rows` may be empty: dead letters leave holes."""

    partition: int
    end: int
    rows: pa.Table
    """Columns of `lake_schema.table_schema`."""


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What an append did."""

    rows: int
    repeated: int
    """Rows that were in the lake before and were left out."""
    positions: dict[int, int]
    """Last offset in the lake of each partition that the append named."""


class Lake:
    """Delta tables at `<uri>/<stream>`, partitioned by event date (UTC). Every call blocks: use a thread in async code.

    `uri` is a folder (text or a Path) or `s3://bucket/prefix`; `lake_storage` says where credentials come from. Safe for
    several threads, and for several processes on storage that refuses a second commit of one version: local files, S3 with
    conditional puts.
    Raises LakeRefused for an address or options that no lake can be kept with.
    """

    def __init__(self, uri: str | PathLike[str], storage_options: Mapping[str, str] | None = None) -> None:
        self.storage = Storage(uri, storage_options)
        self.uri = self.storage.uri
        self._tables: dict[str, DeltaTable] = {}
        self._lock = threading.Lock()

    @property
    def storage_options(self) -> dict[str, Any]:
        """What `polars.scan_delta` is to be given with one of our tables, besides what the table brings with it."""
        # It reads the same name as a number.
        return {"max_retries": int(self.storage.options["max_retries"])} if self.storage.remote else {}

    def append(self, stream: str, batches: Sequence[LakeBatch], *, group: str) -> Appended:
        """Append what the lake does not have of `batches`, all of it in one commit.

        Safe to call twice and from a writer that lost its partitions. Batches of one partition come in offset order.
        Raises LakeUnavailable (nothing was added, or it will be found on the next call; call again) and
        LakeSchemaRefused (a column changed its type; nothing was added, and calling again will not help).
        """
        with self._lock, Unavailable(self.storage, stream, "written"):
            for _ in range(ATTEMPTS):
                try:
                    return self._append(stream, batches, group)
                except CommitFailedError:
                    # Another writer was first. Whatever it added for our partitions, the next look will leave out.
                    self._tables.pop(stream, None)
        raise LakeUnavailable(f"lake {stream}: {ATTEMPTS} commits of other writers came first; try again")

    def position(self, stream: str, group: str, partition: int) -> int | None:
        """The last offset of `partition` in the lake; None when there is none. Raises LakeUnavailable."""
        return self.positions(stream, group, [partition]).get(partition)

    def positions(self, stream: str, group: str, partitions: Sequence[int]) -> dict[int, int]:
        """The last offset of each partition that the lake has; the others are missing. Raises LakeUnavailable."""
        with self._lock, Unavailable(self.storage, stream, "read"):
            table = self._fresh(stream)
            return {} if table is None else _positions(table, group, stream, partitions)

    def wait_for(self, stream: str, group: str, offsets: Mapping[int, int], *, timeout: float) -> None:
        """Return when the lake has each partition up to its offset. Raises LakeBehind after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            found = self.positions(stream, group, list(offsets))
            missing = {p: wanted for p, wanted in offsets.items() if found.get(p, -1) < wanted}
            if not missing:
                return
            if time.monotonic() >= deadline:
                have = {p: found.get(p, -1) for p in missing}
                raise LakeBehind(
                    f"lake {stream}: after {timeout:g} s it has offsets {have} of {missing} (partition: offset); "
                    f"is consumer group {group!r} of features running, or does it hold the stream back (its log says why)?"
                )
            time.sleep(POLL_BUCKET if self.storage.remote else POLL)

    def table(self, stream: str) -> DeltaTable | None:
        """The stream's table as of now; None when nothing was ever appended. Raises LakeUnavailable."""
        with Unavailable(self.storage, stream, "read"):
            return self._open(stream)

    def clashes(self, stream: str, schema: pa.Schema) -> list[Clash]:
        """What keeps events with the columns of `schema` out of the stream's table; empty where they fit.

        Raises LakeUnavailable.
        """
        table = self.table(stream)
        return [] if table is None else clashes(schema, pa.schema(table.schema().to_arrow()))

    def refusal(self, stream: str, schema: pa.Schema) -> str | None:
        """The same as one sentence that says what to do; None where they fit. Raises LakeUnavailable."""
        return _refusal(stream, self.clashes(stream, schema))

    def _append(self, stream: str, batches: Sequence[LakeBatch], group: str) -> Appended:
        partitions = sorted({batch.partition for batch in batches})
        table = self._fresh(stream) or self._create(stream, batches[0].rows.schema)
        # Read from the handle that commits: Delta then refuses us if anyone moved these positions meanwhile.
        before = _positions(table, group, stream, partitions)
        after = dict(before)
        parts: list[pa.Table] = []
        for batch in batches:
            position = after.get(batch.partition, -1)
            if batch.end > position:
                parts.append(batch.rows.filter(pc.greater(batch.rows["_offset"], position)))
                after[batch.partition] = batch.end
        asked = sum(len(batch.rows) for batch in batches)
        if after == before:
            return Appended(rows=0, repeated=asked, positions=after)

        rows = pa.concat_tables(parts)
        known = pa.schema(table.schema().to_arrow())
        if refused := _refusal(stream, clashes(rows.schema, known)):
            raise LakeSchemaRefused(refused)
        rows = fitted(rows, known)
        grown = len(rows.schema) > len(known)
        moved = [Transaction(_app(group, stream, p), end) for p, end in after.items() if before.get(p) != end]
        try:
            write_deltalake(
                table,
                rows,
                mode="append",
                schema_mode="merge" if grown else None,
                commit_properties=CommitProperties(app_transactions=moved),
            )
        except SchemaMismatchError as error:
            raise LakeSchemaRefused(f"lake {stream}: {error}") from error
        return Appended(rows=len(rows), repeated=asked - len(rows), positions=after)

    def _fresh(self, stream: str) -> DeltaTable | None:
        table = self._tables.get(stream)
        if table is not None:
            try:
                table.update_incremental()
            except DeltaError:
                # The table was moved or made anew under us; what we knew of it is worth nothing.
                table = None
        if table is None:
            table = self._open(stream)
        if table is None:
            self._tables.pop(stream, None)
        else:
            self._tables[stream] = table
        return table

    def _open(self, stream: str) -> DeltaTable | None:
        try:
            return DeltaTable(self.storage.table(stream), storage_options=self.storage.options)
        except TableNotFoundError:
            return None

    def _create(self, stream: str, schema: pa.Schema) -> DeltaTable:
        """A new table, or the one that another writer made since we looked, with what it holds by now."""
        self._tables[stream] = DeltaTable.create(
            self.storage.table(stream),
            schema=schema,
            partition_by=["_date"],
            mode="ignore",
            storage_options=self.storage.options,
        )
        return self._tables[stream]


def _app(group: str, stream: str, partition: int) -> str:
    return f"{group}:{stream}:{partition}"


def _positions(table: DeltaTable, group: str, stream: str, partitions: Sequence[int]) -> dict[int, int]:
    found = {p: table.transaction_version(_app(group, stream, p)) for p in partitions}
    return {p: offset for p, offset in found.items() if offset is not None}


def _refusal(stream: str, found: Sequence[Clash]) -> str | None:
    return f"lake {stream}: {', '.join(clash.problem for clash in found)}; {Clash.REMEDY}" if found else None
