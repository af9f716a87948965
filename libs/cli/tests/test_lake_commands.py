"""`millstream lake`: what a person and what a program reads of a lake, and what becomes of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from millstream.testing.s3 import EmbeddedS3
from millstream_cli.main import app
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_reader import read_events
from millstream_tiles.lake_schema import events_table, table_schema

LANDED, GROUP = "flights-landed", "features-lake"
MINUTE = 60_000_000


def millstream(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def land(lake: Lake, stream: str = LANDED, flights: int = 3, group: str = GROUP) -> None:
    """One commit a flight, all of them on one day."""
    schema = table_schema({"properties": {"flight_id": {"type": "string"}, "arr_delay": {"type": "number"}}})
    for offset in range(flights):
        event: dict[str, Any] = {"flight_id": f"F{offset}", "arr_delay": 5}
        rows = events_table(
            schema, partition=0, offsets=[offset], event_times=[offset * MINUTE], known_at=[offset * MINUTE + MINUTE],
            ids=[f"F{offset}"], events=[event],
        )  # fmt: skip
        lake.append(stream, [LakeBatch(partition=0, end=offset, rows=rows)], group=group)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """The lake of the mill in `tmp_path`."""
    lake = Lake(str(tmp_path / "up" / "lake"))
    land(lake)
    land(lake, "gates", 1)
    return lake


def test_a_lake_is_shown_made_small_and_cleared(lake: Lake, tmp_path: Path) -> None:
    shown = millstream("lake", "--data", tmp_path, "--json")
    landed, gates = json.loads(shown.stdout)["tables"]
    assert (landed["stream"], gates["stream"]) == (LANDED, "gates")
    assert landed.items() >= {"rows": 3, "files": 3, "dates": 1, "positions": {"0": 2}}.items()
    assert (landed["newest_event"], landed["newest_known_at"]) == ("1970-01-01T00:02:00Z", "1970-01-01T00:03:00Z")
    assert "1970-01-01 00:02:00" in millstream("lake", "--data", tmp_path).stdout

    assert millstream("lake", "--data", tmp_path, "compact", "-s", LANDED).stdout == (
        f"{LANDED}: 3 files of 1 dates joined, 0 left\n"
    )
    said = json.loads(millstream("lake", "compact", "--lake", lake.uri, "--json").stdout)
    assert [one["files"] for one in said] == [0, 0]

    unused = ["lake", "vacuum", "--lake", lake.uri, "--stream", LANDED]
    assert millstream(*unused).stdout == f"{LANDED}: 0 files deleted\n", "they were in use a moment ago"
    refused = millstream(*unused, "--older-than", "1h")
    assert refused.exit_code == 1
    assert "keep 1d or more" in refused.stderr
    now = [*unused, "--older-than", "0s", "--idle"]
    would = json.loads(millstream(*now, "--dry-run", "--json").stdout)
    assert [(one["deleted"], len(one["files"])) for one in would] == [(False, 3)]
    assert millstream(*now).stdout == f"{LANDED}: 3 files deleted\n"
    assert read_events(Lake(lake.uri), LANDED, ["_offset"])["_offset"].to_list() == [0, 1, 2]
    assert millstream(*unused, "--older-than", "soon").exit_code == 2


def test_what_is_not_there_is_told_in_one_line(lake: Lake, tmp_path: Path) -> None:
    missing = millstream("lake", "--lake", tmp_path / "nowhere")
    assert missing.exit_code == 1
    assert missing.stderr.startswith(f"millstream: no lake at {tmp_path / 'nowhere'} (No such file")
    other = millstream("lake", "compact", "--lake", lake.uri, "--stream", "gate")
    assert other.exit_code == 1
    assert f"no table gate; found: {LANDED}, gates" in other.stderr


def test_a_bucket_is_shown_and_its_secrets_are_not(
    s3: EmbeddedS3, unique_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MILLSTREAM_LAKE", f"{s3.make_bucket(unique_name('mill'))}/lake")
    assert json.loads(millstream("lake", "--json").stdout)["tables"] == []
    land(Lake(json.loads(millstream("lake", "--json").stdout)["lake"]))
    assert json.loads(millstream("lake", "--json").stdout)["tables"][0]["rows"] == 3
    assert "3 files of 1 dates joined" in millstream("lake", "compact").stdout
    for wrong in ("s3://no-such-mill/lake", "s3://miller:grain-and-water@mill/lake"):
        said = millstream("lake", "compact", "--lake", wrong)
        assert said.exit_code == 1
        assert "grain-and-water" not in said.output


def test_the_folder_of_the_mill_may_stand_behind_the_word(lake: Lake, tmp_path: Path) -> None:
    assert millstream("lake", "compact", "--data", tmp_path, "-s", LANDED).stdout.startswith(f"{LANDED}: 3 files")
    assert millstream("lake", "vacuum", "--data", tmp_path, "-s", LANDED).stdout == f"{LANDED}: 0 files deleted\n"


def test_in_a_pipe_no_name_is_cut(lake: Lake, tmp_path: Path) -> None:
    long = "flights-that-were-scheduled-and-then-landed-somewhere-else-than-they-were-meant-to"
    land(lake, long)
    shown = millstream("lake", "--data", tmp_path).stdout
    assert long in shown
    assert "…" not in shown


def test_the_offsets_of_a_lake_of_ones_own_are_those_of_its_writer(tmp_path: Path) -> None:
    own = Lake(str(tmp_path / "own"))
    land(own, group="demo")
    show = ["lake", "--lake", own.uri]
    assert "group features-lake has no offsets in flights-landed; name the group of whoever writes: --group" in (
        millstream(*show).stdout
    )
    assert [one["positions"] for one in json.loads(millstream(*show, "--json").stdout)["tables"]] == [{}]
    assert "no offsets" not in (named := millstream(*show, "--group", "demo")).stdout
    assert "0: 2" in named.stdout
    said = json.loads(millstream(*show, "--group", "demo", "--json").stdout)
    assert (said["group"], said["tables"][0]["positions"]) == ("demo", {"0": 2})
