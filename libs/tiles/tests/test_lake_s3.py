"""A lake in a bucket: the same promises as in a folder, and errors that say what to set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from millstream.testing.s3 import EmbeddedS3
from millstream_tiles.errors import LakeRefused, LakeUnavailable
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import count, read_events
from millstream_tiles.lake_tables import state_of, streams_of
from millstream_tiles.lake_upkeep import compact, vacuum
from millstream_tiles.registry import open_store

from .lake_story import DEPARTED, GROUP, departures, offsets_in


@pytest.fixture
def bucket(s3: EmbeddedS3, unique_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    yield s3.make_bucket(unique_name("mill"))
    s3.know_nobody(from_now=False)


def test_eight_racing_writers_and_a_compaction_leave_every_offset_once(bucket: str) -> None:
    """All eight hold the one partition for theirs, as after eight rebalances in a row."""
    rivals = [Lake(f"{bucket}/lake") for _ in range(8)]
    failures: list[BaseException] = []
    written = threading.Event()
    compacted = []

    def write(writer: Lake) -> None:
        try:
            for first in range(0, 40, 8):
                while True:
                    try:
                        writer.append(DEPARTED, [departures(range(first, first + 10))], group=GROUP)
                        break
                    except LakeUnavailable as error:
                        if "commits of other writers came first" not in str(error):
                            raise
        except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
            failures.append(error)

    def tidy() -> None:
        mine = Lake(f"{bucket}/lake")
        while not written.is_set():
            compacted.append(compact(mine, DEPARTED).files)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in rivals]
    tidier = threading.Thread(target=tidy)
    for thread in [*threads, tidier]:
        thread.start()
    for thread in threads:
        thread.join()
    written.set()
    tidier.join()
    assert failures == []
    lake = Lake(f"{bucket}/lake")
    assert offsets_in(lake) == [(0, o) for o in range(42)]
    compacted.append(compact(lake, DEPARTED).files)
    assert sum(compacted) > 0
    assert vacuum(lake, DEPARTED, older_than=timedelta(0), idle=True), "the replaced files, at least"
    assert offsets_in(lake) == [(0, o) for o in range(42)]
    assert streams_of(lake) == [DEPARTED]
    state = state_of(lake, DEPARTED, GROUP)
    assert state is not None
    assert (state.rows, state.positions) == (42, {0: 41})


DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from millstream_tiles import stream_source

flight = Entity(name="flight_id")
delays = StreamFeatureView(
    name="delays", entities=[flight], timestamp_field="t",
    source=stream_source("flights-departed", time="t", lateness="1h"),
    aggregations=[Aggregation(column="dep_delay", function="sum", name="delay_1d", time_window=timedelta(days=1),
                              slide_interval=timedelta(hours=1))],
)
"""


def test_history_read_from_a_bucket_is_the_history_of_the_folder(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "feature_store.yaml").write_text(
        "project: s3\nprovider: local\noffline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}\n"
        "online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}\n"
    )
    places = [str(tmp_path / "lake"), f"{bucket}/deep/down"]
    for place in places:
        for first in range(0, 40, 5):
            Lake(place).append(DEPARTED, [departures(range(first, first + 5))], group=GROUP)
    asked = pd.DataFrame(
        {
            "flight_id": [f"p0-{n}" for n in range(40)],
            "event_timestamp": [datetime(1970, 1, 1 + n // 4, 12, tzinfo=UTC) for n in range(40)],
        }
    )
    answers = []
    for place in places:
        store = open_store(tmp_path, offline={"lake": place})
        answers.append(store.get_historical_features(asked, ["delays:delay_1d"]).to_df())
    assert answers[0]["delay_1d"].sum() > 100
    pd.testing.assert_frame_equal(answers[0], answers[1])
    assert read_events(Lake(places[1]), DEPARTED, ["_offset"], since=0, until=1).height == 1


def test_what_is_wrong_with_a_bucket_is_said_so_that_a_person_can_mend_it(
    bucket: str, s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(uri: str) -> str:
        lake = Lake(uri)
        said = []
        for attempt in (
            lambda: lake.position(DEPARTED, GROUP, 0),
            lambda: lake.append(DEPARTED, [departures([0])], group=GROUP),
            lambda: count(lake, DEPARTED),
            lambda: streams_of(lake),
        ):
            with pytest.raises(LakeUnavailable) as error:
                attempt()
            said.append(str(error.value))
        assert len({text.partition(": ")[2] for text in said}) == 1, said
        return said[0]

    assert refusal("s3://no-such-mill/lake") == (
        f"lake {DEPARTED} cannot be read: bucket 'no-such-mill' does not exist; create it, or correct the lake's address"
    )
    s3.know_nobody(from_now=True)
    denied = refusal(bucket)
    assert "refuses our credentials (InvalidAccessKeyId); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in denied
    assert "miller" not in denied
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1 does not answer; check AWS_ENDPOINT_URL" in refusal(bucket)


def test_a_lake_that_could_lose_commits_or_tell_secrets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        LakeRefused, match=r"lake s3://…@mill: the address carries credentials.* write s3://mill/x"
    ) as error:
        Lake("s3://key:grain-and-water@mill/x")
    assert "grain" not in str(error.value)
    with pytest.raises(LakeRefused, match="no bucket; write s3://bucket/prefix"):
        Lake("s3://")
    with pytest.raises(LakeRefused, match="aws_s3_allow_unsafe_rename is on"):
        Lake("s3://mill/x", {"AWS_S3_ALLOW_UNSAFE_RENAME": "true"})
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    with pytest.raises(LakeRefused, match="AWS_S3_ALLOW_UNSAFE_RENAME is on"):
        Lake("s3://mill/x")


def test_a_secret_in_a_storages_words_is_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    lake = Lake("s3://mill/x", {"aws_session_token": "given-as-an-option"})
    said = lake.storage.said(OSError("it said from-the-environment\n  and given-as-an-option"))
    assert said == "it said … and …"
    assert "given" not in repr(lake.storage)
