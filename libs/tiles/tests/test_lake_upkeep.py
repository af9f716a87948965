"""A lake is kept quick and small while it is written: no row is lost or doubled, and no position forgotten."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from millstream_tiles import lake_upkeep
from millstream_tiles.errors import LakeRefused, LakeUnavailable
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import count, read_events
from millstream_tiles.lake_storage import Unavailable
from millstream_tiles.lake_tables import state_of, streams_of
from millstream_tiles.lake_upkeep import Compacted, compact, dates_of, vacuum

from .lake_story import DAY, DEPARTED, EVENT, GROUP, departures, offsets_in

NOW = timedelta(0)
T = TypeVar("T")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_a_date_of_many_small_files_becomes_one_file(lake: Lake) -> None:
    for offset in range(13):  # four a day
        lake.append(DEPARTED, [departures([offset])], group=GROUP)
    assert [found.small for found in dates_of(lake, DEPARTED)] == [1, 4, 4, 4]
    heard: list[tuple[int, int]] = []
    enough = sum(found.bytes for found in dates_of(lake, DEPARTED)[1:3])
    first = compact(lake, DEPARTED, least=3, most_bytes=enough, told=lambda done, of: heard.append((done, of)))
    assert first == Compacted(dates=2, files=8, left=1)
    assert heard == [(0, 2), (1, 2), (2, 2)]
    assert [found.files for found in dates_of(lake, DEPARTED)] == [1, 1, 1, 4], "the latest dates come first"
    assert compact(lake, DEPARTED) == Compacted(dates=1, files=4)
    assert compact(lake, DEPARTED) == Compacted()
    assert offsets_in(lake) == [(0, o) for o in range(13)]


def test_a_field_that_came_later_stays_null_for_earlier_events_when_they_share_a_file(lake: Lake) -> None:
    lake.append(DEPARTED, [departures(range(2))], group=GROUP)
    wider = {"properties": {**EVENT["properties"], "gate": {"type": "integer"}}}
    lake.append(DEPARTED, [departures(range(2, 4), schema=wider, gate=7)], group=GROUP)
    before = read_events(lake, DEPARTED, ["_event_time", "_known_at", "_id", "flight_id", "dep_delay", "gate"])
    assert compact(lake, DEPARTED).files == 2
    assert before["gate"].to_list() == [None, None, 7, 7]
    assert read_events(lake, DEPARTED, before.columns).equals(before)


def test_writers_go_on_while_two_others_compact_checkpoint_and_clear_the_log(lake: Lake) -> None:
    """Every commit of the five meets commits of the others; what is left is each event once, and the positions."""
    lake.append(DEPARTED, [departures([0])], group=GROUP)
    table = lake.table(DEPARTED)
    assert table is not None
    # Whatever is behind the newest checkpoint goes at once, not after 30 days.
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    failures: list[BaseException] = []
    writing = threading.Event()
    joined = []

    def write(writer: Lake, partition: int) -> None:
        try:
            for first in range(0, 90, 3):
                again = max(0, first - 2)  # a redelivery overlaps with what is there
                batch = departures(range(again, first + 3), partition=partition, apart=DAY // 40)
                until_done(lambda batch=batch: writer.append(DEPARTED, [batch], group=GROUP))
        except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
            failures.append(error)

    def tidy() -> None:
        mine = Lake(lake.uri)
        try:
            while not writing.is_set():
                joined.append(until_done(lambda: compact(mine, DEPARTED)).files)
                until_done(lambda: vacuum(mine, DEPARTED, older_than=timedelta(days=1)))
                until_done(lambda: clear_log(mine))
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    # Two believe that partition 0 is theirs.
    writers = [threading.Thread(target=write, args=(Lake(lake.uri), partition)) for partition in (0, 0, 1)]
    tidiers = [threading.Thread(target=tidy) for _ in range(2)]
    for thread in [*writers, *tidiers]:
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    for thread in tidiers:
        thread.join()
    assert failures == []
    assert sum(joined) > 0
    assert len(list((Path(lake.uri) / DEPARTED / "_delta_log").glob("*.json"))) < 90, "the log was cleared"
    fresh = Lake(lake.uri)
    assert offsets_in(fresh) == [(p, o) for p in (0, 1) for o in range(90)]
    assert fresh.positions(DEPARTED, GROUP, [0, 1]) == {0: 89, 1: 89}


def clear_log(lake: Lake) -> None:
    with Unavailable(lake.storage, DEPARTED, "cleared"):
        table = lake.table(DEPARTED)
        assert table is not None
        table.create_checkpoint()
        table.cleanup_metadata()


def until_done(work: Callable[[], T]) -> T:
    """As the service does it: what gave way too often, or met a log that was cleared below it, is done again."""
    while True:
        try:
            return work()
        except LakeUnavailable:
            continue


def test_a_writer_that_slept_through_a_clearing_of_the_log_adds_nothing_twice(lake: Lake) -> None:
    zombie = Lake(lake.uri)
    zombie.append(DEPARTED, [departures([0])], group=GROUP)
    for offset in range(1, 6):
        lake.append(DEPARTED, [departures([offset])], group=GROUP)
    table = lake.table(DEPARTED)
    assert table is not None
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    table.create_checkpoint()
    table.cleanup_metadata()
    assert not (Path(lake.uri) / DEPARTED / "_delta_log" / f"{2:020}.json").exists()
    assert zombie.append(DEPARTED, [departures(range(1, 8))], group=GROUP).rows == 2
    assert offsets_in(lake) == [(0, o) for o in range(8)]


def test_who_compacts_gives_way_to_an_append_and_to_another_compaction(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset in range(3):
        lake.append(DEPARTED, [departures([offset], apart=DAY // 40)], group=GROUP)
    write, meanwhile = lake_upkeep.write_deltalake, [lambda: compact(Lake(lake.uri), DEPARTED), lambda: append(3)]

    def append(offset: int) -> None:
        lake.append(DEPARTED, [departures([offset], apart=DAY // 40)], group=GROUP)

    def after_others(*args: Any, **kwargs: Any) -> None:
        if meanwhile:
            meanwhile.pop()()
        write(*args, **kwargs)

    monkeypatch.setattr(lake_upkeep, "write_deltalake", after_others)
    assert compact(lake, DEPARTED).dates == 1
    assert offsets_in(lake) == [(0, o) for o in range(4)]
    for offset in (4, 5):
        append(offset)
    meanwhile += [lambda o=o: append(o) for o in (8, 7, 6)]  # the date never rests: it is left for the next time
    assert compact(lake, DEPARTED) == Compacted(left=1)
    assert offsets_in(lake) == [(0, o) for o in range(9)]


def test_the_librarys_own_compaction_would_double_rows(lake: Lake) -> None:
    """Why ours is an overwrite. When this fails, delta-rs checks it, and ours may become a call of `optimize`."""
    for offset in range(3):
        lake.append(DEPARTED, [departures([offset])], group=GROUP)
    first, second = lake.table(DEPARTED), lake.table(DEPARTED)
    assert first is not None
    assert second is not None
    first.optimize.compact()
    second.optimize.compact()
    assert count(lake, DEPARTED) == 6


def test_vacuum_deletes_what_nobody_can_need_and_says_so_before(lake: Lake) -> None:
    for offset in range(4):
        lake.append(DEPARTED, [departures([offset])], group=GROUP)
    compact(lake, DEPARTED)
    table = lake.table(DEPARTED)
    assert table is not None
    assert vacuum(lake, DEPARTED) == [], "a reader may be at work on a file that was replaced just now"
    with pytest.raises(LakeRefused, match="younger than a day may be in use"):
        vacuum(lake, DEPARTED, older_than=NOW)
    day = Path(lake.uri) / DEPARTED / "_date=1970-01-01"
    named = vacuum(lake, DEPARTED, older_than=NOW, dry_run=True, idle=True)
    assert len(named) == 4
    assert len(list(day.iterdir())) == 5
    assert sorted(vacuum(lake, DEPARTED, older_than=NOW, idle=True)) == sorted(named)
    assert vacuum(lake, DEPARTED, older_than=NOW, dry_run=True, idle=True) == [], (
        "the log names them, but they are gone"
    )
    (day / "part-of-a-crash.parquet").write_bytes(b"PAR1")
    assert vacuum(lake, DEPARTED) == [], "it may be a commit under way"
    os.utime(day / "part-of-a-crash.parquet", (0, 0))
    assert vacuum(lake, DEPARTED) == ["_date=1970-01-01/part-of-a-crash.parquet"]
    assert offsets_in(Lake(lake.uri)) == [(0, o) for o in range(4)]


def test_a_table_tells_its_state_without_a_row_being_read(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(LakeUnavailable, match=r"no lake at .*; name a folder"):
        streams_of(lake)
    lake.append(DEPARTED, [departures(range(6)), departures(range(3), partition=2)], group=GROUP)
    (tmp_path / "lake" / "no-table").mkdir()
    assert streams_of(lake) == [DEPARTED]
    assert state_of(lake, "no-table", GROUP) is None
    state = state_of(lake, DEPARTED, GROUP)
    assert state is not None
    assert (state.rows, state.files, state.small_files, state.dates) == (9, 2, 2, 2)
    assert state.bytes == sum(file.stat().st_size for file in tmp_path.rglob("*.parquet"))
    assert f"{state.newest_event:%Y-%m-%d %H:%M}, {state.newest_known_at:%H:%M}" == "1970-01-02 06:00, 06:01"
    assert state.positions == {0: 5, 2: 2}
