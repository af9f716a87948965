"""A Feast repo with mistakes: all of them are told at once, each with its file and line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from millstream_tiles import describe, open_store
from millstream_tiles.errors import BadRepo, RepoFault

STORE = "project: harbour\n"
HEAD = """\
from datetime import timedelta
from feast import Entity, FeatureService
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from millstream_tiles import stream_source

HOUR = timedelta(hours=1)
berth = Entity(name="berth")
docked = stream_source("ships-docked", time="docked_at")


def mean(column, **more):
    return Aggregation(**{"column": column, "function": "mean", "time_window": HOUR} | more)


def view(name, *aggregations, entities=(berth,)):
    return StreamFeatureView(
        name=name, source=docked, timestamp_field="docked_at", entities=list(entities), aggregations=list(aggregations)
    )


"""
FIRST = HEAD.count("\n") + 1
"""Line after HEAD."""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a repo: feature_store.yaml and the files given by their stem."""

    def write(store: str = STORE, **files: str) -> Path:
        (tmp_path / "feature_store.yaml").write_text(store)
        for stem, text in files.items():
            (tmp_path / f"{stem}.py").write_text(text)
        return tmp_path

    return write


def faults(repo: Path) -> list[RepoFault]:
    with pytest.raises(BadRepo) as bad:
        describe(repo)
    assert str(bad.value).count("\n") + 1 == len(bad.value.faults), "one line each"
    return list(bad.value.faults)


def told(repo: Path) -> list[str]:
    return [str(fault) for fault in faults(repo)]


def test_a_view_stands_where_its_name_is_written(write: Write) -> None:
    views = 'waits = view("waits", mean("wait"))\ncranes = StreamFeatureView(\n    source=docked, name="cranes",\n'
    views += '    timestamp_field="docked_at", entities=[berth], aggregations=[mean("lifts", name="lifts")],\n)\n'
    views += 'BERTHS = "berths"\nberths = view(BERTHS, mean("wait"))\nlifts = view("lifts", mean("lifts"))\n'
    catalogue = describe(write(definitions=HEAD + views))
    assert sorted(catalogue.views) == ["berths", "cranes", "lifts", "waits"]
    assert catalogue.places == {
        "waits": ("definitions.py", FIRST),
        "cranes": ("definitions.py", FIRST + 2),
        "lifts": ("definitions.py", FIRST + 7),
    }


def test_all_that_is_wrong_with_all_views_is_told(write: Write) -> None:
    views = """\
a = view("a", mean("wait", function="median", slide_interval=timedelta(minutes=7)), mean("", name="nothing"))
b = view("b", mean("wait", name="twice"), mean("lifts", name="twice"), entities=[])
c = view("c", mean("wait"), entities=[Entity(name="quay")])
"""
    assert told(write(definitions=HEAD + views)) == [
        f"definitions.py:{FIRST}: a: aggregation 'median_wait_3600s': no function 'median'; "
        "there are count, sum, mean, min, max, var, std, first, last, last_5 (the latest five values), count_distinct, "
        "p50, p90, p99",
        f"definitions.py:{FIRST}: a: aggregation 'median_wait_3600s': slide 0:07:00 does not divide window 1:00:00; "
        "write for example slide_interval=timedelta(minutes=10)",
        f"definitions.py:{FIRST}: a: aggregation 'nothing': no column; only count may go without",
        f"definitions.py:{FIRST + 1}: b: it has no entity; write entities=[...], windows are kept for each entity",
        f"definitions.py:{FIRST + 1}: b: two aggregations are called 'twice'; give one of them a name=...",
        f"definitions.py:{FIRST + 2}: c: entity 'quay' is in no variable; write quay = Entity(...), entities=[quay]",
    ]


def test_every_file_that_cannot_be_loaded_is_told_with_the_line_that_stopped_it(write: Write) -> None:
    repo = write(
        store="project: harbour\nonline_store: {type: sqlite, pth: x}\n",
        first="from shared import berth\n",
        helpers="def half(x):\n    return x / 0\n",
        second="import helpers\n\nhelpers.half(1)\n",
        shared="import math\nberths = brth\n",
        third="x = (\n",
        views=HEAD + 'bad = view("bad", mean(""))\n',
    )
    remedy = "correct it; `feast plan` in features/ shows the whole traceback"
    assert told(repo) == [
        "feature_store.yaml:2: pth: Extra inputs are not permitted; "
        "write what Feast's documentation of feature_store.yaml allows there",
        f"shared.py:2: NameError: name 'brth' is not defined; {remedy}",
        f"helpers.py:2: ZeroDivisionError: division by zero; {remedy}",
        f"third.py:1: SyntaxError: '(' was never closed; {remedy}",
        f"views.py:{FIRST}: bad: aggregation 'mean__3600s': no column; only count may go without",
    ]


def test_a_program_in_the_repos_folder_is_told_and_does_not_wait_for_itself(write: Write) -> None:
    program = "from pathlib import Path\nfrom millstream_tiles import open_store\n\nstore = open_store(Path(__file__).parent)\n"
    [said] = told(write(ask=program))
    assert said.startswith("ask.py:4: it opens a Feast repo while it is loaded as a part of one; keep programs out of")
    (write(views=HEAD + 'one = view("one", mean("depth"))\n') / "ask.py").unlink()
    assert list(describe(write()).views) == ["one"], "and the next repo is read as ever"


def test_another_thread_may_import_meanwhile(write: Write) -> None:
    repo = write(views=HEAD + 'one = view("one", mean("depth"))\n')
    ended = threading.Event()

    def import_and_forget() -> None:
        while not ended.is_set():
            for name in [f"imported_meanwhile_{n}" for n in range(50)]:
                sys.modules[name] = ModuleType(name)
            for name in [name for name in list(sys.modules) if name.startswith("imported_meanwhile_")]:
                del sys.modules[name]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    importing = threading.Thread(target=import_and_forget)
    importing.start()
    try:
        for _ in range(20):
            assert list(describe(repo).views) == ["one"]
    finally:
        ended.set()
        importing.join()
        sys.setswitchinterval(interval)


def test_a_stream_that_cannot_be_read_is_told_apart(write: Write) -> None:
    repo = write(
        a='from millstream_tiles import stream_source\n\nships = stream_source("../streams/ships.yaml")\n', b="x"
    )
    ships, name = faults(repo)
    assert (ships.file, ships.line, ships.stream_file) == ("a.py", 3, repo / "../streams/ships.yaml")
    assert name.stream_file is None


def test_a_relative_lake_is_where_the_caller_stands_and_in_the_yaml_where_the_repo_is(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    store = f"{STORE}offline_store: {{type: millstream_tiles.offline_store.MillstreamOfflineStore, lake: lake}}\n"
    repo = write(store, waits=HEAD + 'waits = view("waits", mean("wait"))\n')
    assert open_store(repo).config.offline_store.lake == "lake", "which the store looks for from its repo"
    assert open_store(repo, offline={"lake": "lake"}).config.offline_store.lake == str(tmp_path.parent / "lake")
    assert open_store(repo, offline={"lake": "s3://mill/lake"}).config.offline_store.lake == "s3://mill/lake"
