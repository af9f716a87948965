"""The lake holds every event once: repeats, overlaps, rival writers and crashes add nothing twice and lose nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
import pytest
from deltalake.exceptions import CommitFailedError

from millstream_tiles import lake as lake_module
from millstream_tiles.errors import LakeBehind, LakeRefused, LakeSchemaRefused, LakeUnavailable
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_reader import count, distinct_ids, read_events
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.lake_upkeep import compact, vacuum

from .lake_story import DAY, DEPARTED, EVENT, GROUP, departures, offsets_in

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_the_lines_of_the_readme_add_two_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [lines] = re.findall(r"```python\n([^`]*lake\.append[^`]*)```", README.read_text())
    for rows in (2, 0):
        exec(compile(lines, str(README), "exec"), {})
        said = capsys.readouterr().out
        assert said.startswith(f"{rows}\n")
        assert "shape: (2, 2)" in said


def test_a_folder_may_be_a_path_and_a_bucket_may_not(tmp_path: Path) -> None:
    assert Lake(tmp_path / "lake").append(DEPARTED, [departures(range(3))], group=GROUP).rows == 3
    assert Lake(str(tmp_path / "lake")).positions(DEPARTED, GROUP, [0]) == {0: 2}
    with pytest.raises(
        LakeRefused, match=r"^lake s3:/mill/lake: a Path makes one slash of two; give the address as text$"
    ):
        Lake(Path("s3://mill/lake"))


def test_a_repeated_batch_adds_nothing(lake: Lake) -> None:
    first = lake.append(DEPARTED, [departures(range(10))], group=GROUP)
    again = lake.append(DEPARTED, [departures(range(10))], group=GROUP)
    assert (first.rows, first.repeated, first.positions) == (10, 0, {0: 9})
    assert (again.rows, again.repeated, again.positions) == (0, 10, {0: 9})
    assert count(lake, DEPARTED) == distinct_ids(lake, DEPARTED) == 10


def test_of_an_overlapping_batch_only_the_new_end_is_added(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(10))], group=GROUP)
    assert lake.append(DEPARTED, [departures(range(5, 15))], group=GROUP).rows == 5
    assert offsets_in(lake) == [(0, o) for o in range(15)]


def test_many_partitions_and_batches_go_in_one_commit(lake: Lake) -> None:
    batches = [departures(range(3)), departures(range(3, 6)), departures(range(4), partition=1)]
    assert lake.append(DEPARTED, batches, group=GROUP).positions == {0: 5, 1: 3}
    table = lake.table(DEPARTED)
    assert table is not None
    assert table.version() == 1  # 0 made the table
    assert lake.positions(DEPARTED, GROUP, [0, 1, 2]) == {0: 5, 1: 3}
    assert count(lake, DEPARTED) == 10


def test_a_batch_of_dead_letters_only_still_moves_the_position(lake: Lake) -> None:
    empty = LakeBatch(partition=0, end=4, rows=departures(range(1)).rows.slice(0, 0))
    assert lake.append(DEPARTED, [empty], group=GROUP).rows == 0
    assert lake.position(DEPARTED, GROUP, 0) == 4
    assert count(lake, DEPARTED) == 0


def test_nothing_is_known_of_a_stream_that_never_spoke(lake: Lake) -> None:
    assert lake.position(DEPARTED, GROUP, 0) is None
    assert count(lake, DEPARTED) == distinct_ids(lake, DEPARTED) == 0
    assert read_events(lake, DEPARTED, ["_event_time", "dep_delay"]).is_empty()


def test_a_writer_that_lost_its_partition_cannot_add_twice(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zombie looks, the new owner commits, the zombie commits: Delta refuses, the zombie looks again."""
    lake.append(DEPARTED, [departures(range(1))], group=GROUP)
    zombie = Lake(lake.uri)
    refused: list[str] = []
    write = deltalake.write_deltalake

    def after_the_new_owner(*args: Any, **kwargs: Any) -> None:
        if not refused:
            refused.append("not yet")
            lake.append(DEPARTED, [departures(range(1, 8))], group=GROUP)
            try:
                write(*args, **kwargs)
            except CommitFailedError as error:
                refused[0] = str(error)
                raise
        else:
            write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(lake_module, "write_deltalake", _once_for(zombie, after_the_new_owner, write))
        answer = zombie.append(DEPARTED, [departures(range(1, 10))], group=GROUP)
    assert "Concurrent transaction failed" in refused[0]
    assert (answer.rows, answer.repeated) == (2, 7)
    assert offsets_in(lake) == [(0, o) for o in range(10)]


def _once_for(zombie: Lake, mine: Any, theirs: Any) -> Any:
    """`mine` for the zombie's tables, `theirs` for everybody else's."""

    def write(table: deltalake.DeltaTable, *args: Any, **kwargs: Any) -> None:
        (mine if table is zombie._tables.get(DEPARTED) else theirs)(table, *args, **kwargs)

    return write


def test_two_writers_racing_for_one_partition_leave_every_event_once(lake: Lake) -> None:
    rivals = [lake, Lake(lake.uri)]
    failures = []

    def push(writer: Lake) -> None:
        for start in range(0, 60, 4):
            while True:
                try:
                    writer.append(DEPARTED, [departures(range(start, start + 6))], group=GROUP)
                    break
                except LakeUnavailable as error:
                    if "commits of other writers came first; try again" not in str(error):
                        failures.append(error)
                        break

    threads = [threading.Thread(target=push, args=(writer,)) for writer in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert offsets_in(lake) == [(0, o) for o in range(62)]


def test_a_writer_that_finds_its_new_table_made_and_filled_adds_nothing_twice(lake: Lake) -> None:
    class Slow(Lake):
        def _create(self, stream: str, schema: pa.Schema) -> deltalake.DeltaTable:
            lake.append(DEPARTED, [departures(range(6))], group=GROUP)
            return super()._create(stream, schema)

    appended = Slow(lake.uri).append(DEPARTED, [departures(range(8))], group=GROUP)
    assert (appended.rows, appended.repeated) == (2, 6)
    assert offsets_in(lake) == [(0, o) for o in range(8)]


def test_a_file_written_before_a_crash_is_no_event_until_it_is_committed(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(4))], group=GROUP)
    table = lake.table(DEPARTED)
    assert table is not None
    written = Path(table.file_uris()[0].removeprefix("file://"))
    written.with_name("part-of-a-crash.parquet").write_bytes(written.read_bytes())
    assert count(Lake(lake.uri), DEPARTED) == 4
    lake.append(DEPARTED, [departures(range(8))], group=GROUP)
    assert offsets_in(lake) == [(0, o) for o in range(8)]


CRASHING = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2])))
from lake_story import DEPARTED, GROUP, departures
from millstream_tiles.lake import Lake

lake = Lake(sys.argv[1])
for first in range(0, 100_000, 40):
    lake.append(DEPARTED, [departures(range(first, first + 40))], group=GROUP)
    print(first, flush=True)
"""


def test_a_writer_killed_in_the_middle_resumes_where_the_lake_stands(lake: Lake) -> None:
    command = [sys.executable, "-c", CRASHING, lake.uri, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            assert writer.stdout.readline()
        writer.kill()
    last = lake.position(DEPARTED, GROUP, 0)
    assert last is not None
    assert last >= 3 * 40 - 1
    assert lake.append(DEPARTED, [departures(range(last - 9, last + 11))], group=GROUP).rows == 10
    last += 10
    assert offsets_in(lake) == [(0, o) for o in range(last + 1)]


def test_a_new_optional_field_is_null_for_earlier_events(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(2))], group=GROUP)
    wider = {"properties": {**EVENT["properties"], "gate": {"type": ["integer", "null"]}}}
    lake.append(DEPARTED, [departures(range(2, 4), schema=wider, gate=7)], group=GROUP)
    lake.append(DEPARTED, [departures(range(4, 6))], group=GROUP)  # a worker that was not restarted yet
    rows = read_events(lake, DEPARTED, ["_offset", "gate"])
    assert rows["gate"].to_list() == [None, None, 7, 7, None, None]


def test_a_field_that_changed_its_type_is_refused_by_name(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(2))], group=GROUP)
    other = {"properties": {**EVENT["properties"], "dep_delay": {"type": "string"}}}
    with pytest.raises(
        LakeSchemaRefused, match="'dep_delay' is a number in the lake and text in the stream's schema; give the field"
    ):
        lake.append(DEPARTED, [departures(range(2, 4), schema=other)], group=GROUP)
    assert lake.position(DEPARTED, GROUP, 0) == 1


def test_positions_survive_checkpoints_compaction_and_vacuum(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(1), partition=1)], group=GROUP)
    for offset in range(110):  # Delta writes a checkpoint every 100 commits
        lake.append(DEPARTED, [departures(range(offset, offset + 1))], group=GROUP)
    assert compact(lake, DEPARTED).files > 0
    vacuum(lake, DEPARTED)
    assert Lake(lake.uri).positions(DEPARTED, GROUP, [0, 1]) == {0: 109, 1: 0}
    assert count(lake, DEPARTED) == 111


def test_waiting_for_the_lake_ends_when_another_writer_brings_the_offset(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(2))], group=GROUP)
    other = Lake(lake.uri)
    writer = threading.Thread(target=lambda: other.append(DEPARTED, [departures(range(2, 9))], group=GROUP))
    writer.start()
    lake.wait_for(DEPARTED, GROUP, {0: 8}, timeout=30)
    writer.join()
    with pytest.raises(LakeBehind, match=r"offsets \{0: 8\} of \{0: 99\}.*is consumer group"):
        lake.wait_for(DEPARTED, GROUP, {0: 99}, timeout=0.01)


def test_a_lake_in_the_way_of_a_file_says_it_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("not a folder")
    lake = Lake(str(tmp_path / "lake"))
    with pytest.raises(LakeUnavailable, match="lake flights-departed cannot be written"):
        lake.append(DEPARTED, [departures(range(2))], group=GROUP)


def test_only_the_events_of_the_asked_time_and_known_at_are_read(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(12))], group=GROUP)
    asked = read_events(lake, DEPARTED, ["dep_delay"], since=DAY, until=2 * DAY, known_by=DAY + DAY // 2 + 60_000_000)
    assert asked["dep_delay"].to_list() == [4.0, 5.0, 6.0]
    assert read_events(lake, DEPARTED, ["dep_delay"], since=-(10**18), until=10**18).height == 12


def test_columns_have_the_types_of_the_json_schema() -> None:
    schema = table_schema(
        {
            "$defs": {"code": {"enum": ["JFK", "LGA"]}},
            "properties": {
                "n": {"type": "integer"},
                "x": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "ok": {"type": "boolean"},
                "at": {"type": "string", "format": "date-time"},
                "origin": {"$ref": "#/$defs/code"},
                "legs": {"type": "array"},
                "both": {"type": ["integer", "number"]},
                "mixed": {"type": ["string", "integer"]},
            },
        }
    )
    assert {f.name: str(f.type) for f in schema if not f.name.startswith("_")} == {
        "n": "int64",
        "x": "double",
        "ok": "bool",
        "at": "string",
        "origin": "string",
        "legs": "string",
        "both": "double",
        "mixed": "string",
    }
    events = [
        {"n": 3.0, "x": True, "ok": 1, "at": "2013-01-01T00:00:00Z", "legs": [1, "a"], "both": 2**60 + 1, "mixed": 5},
        {"n": 2**70, "x": "late", "ok": False, "mixed": "five", "both": 2},
    ]
    table = events_table(
        schema, partition=2, offsets=[7, 9], event_times=[-1, DAY], known_at=[0, DAY], ids=[42, None], events=events
    )
    assert table.schema == schema
    frame = pl.DataFrame(pl.from_arrow(table))
    assert frame.select("n", "x", "ok", "legs", "both", "mixed", "_id", "_offset").rows() == [
        (3, 1.0, None, '[1,"a"]', float(2**60), "5", "42", 7),
        (2**63 - 1, None, False, None, 2.0, "five", None, 9),
    ]
    assert [str(d) for d in frame["_date"]] == ["1969-12-31", "1970-01-02"]
    with pytest.raises(ValueError, match="property '_offset': the lake uses this name itself"):
        table_schema({"properties": {"_offset": {"type": "integer"}}})
    assert isinstance(schema, pa.Schema)


def test_a_number_too_large_for_its_column_stays_too_large_and_stays_a_value() -> None:
    """Rounded to 2**53 it would enter sums, and as a null it would leave counts: online it does neither."""
    schema = table_schema({"properties": {"x": {"type": "number"}, "n": {"type": "integer"}}})
    said = [2**53, 2**53 + 1, -(2**53) - 1, 2**63, 10**400, -(10**400), 1e308]
    events = [{"x": value, "n": int(value)} for value in said]
    zeros = [0] * len(said)
    table = events_table(
        schema, partition=0, offsets=zeros, event_times=zeros, known_at=zeros, ids=zeros, events=events
    )
    x, n = table["x"].to_pylist(), table["n"].to_pylist()
    assert x[0] == n[0] == 2**53
    assert all(abs(value) > 2**53 and (value > 0) == (sent > 0) for value, sent in zip(x[1:], said[1:], strict=True))
    assert n == [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63 - 1, -(2**63), 2**63 - 1]
