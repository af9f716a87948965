"""The programs of a control plane are built whole or not at all, and what was found is told in a table."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from . import plane_tools
from .conftest import built
from .plane_tools import ALL, ETCD, KUBERNETES, SCALER, binary, build, missing
from .report import Check, not_proved, table
from .tools import NoTool


def test_without_go_the_message_says_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(NoTool, match=r"^etcd v[\d.]+ is built by Go 1.26 or newer, and there is no Go here$"):
        build(ETCD, tmp_path)


def test_a_disk_that_is_too_full_is_seen_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_tools, "go_version", lambda: (1, 26))
    monkeypatch.setattr(plane_tools, "FREE_DISK", 2**60)

    with pytest.raises(NoTool, match=r"has [\d.]+ GB free, and a build takes 10 meanwhile$"):
        build(SCALER, tmp_path)


def test_what_is_there_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name in KUBERNETES.packages:
        KUBERNETES.path(tmp_path, name).parent.mkdir(exist_ok=True)
        KUBERNETES.path(tmp_path, name).touch()

    assert build(KUBERNETES, tmp_path) == KUBERNETES.folder(tmp_path)
    assert {path.name for path in missing(tmp_path, *ALL)} == {
        *(name for group in ALL if group is not KUBERNETES for name in group.packages),
        plane_tools.manifests(tmp_path).name,
    }


def test_a_program_is_found_under_the_name_that_go_gives_it() -> None:
    assert binary("go.etcd.io/etcd/server/v3") == "server"
    assert binary("./cmd/operator") == "operator"


def test_the_table_counts_a_test_once_and_names_what_was_real() -> None:
    helm, cluster = ["helm v4"], ["etcd", "helm v4"]
    checks = [
        Check(name="test_rendered.py::test_it_is[a]", real=helm, result="passed", seconds=1.0),
        Check(name="test_rendered.py::test_it_is[b]", real=helm, result="failed", seconds=0.5),
        Check(name="test_releases.py::test_it_comes", real=cluster, result="skipped", seconds=0.0, why="no etcd"),
    ]

    assert table(checks) == [
        *("", "helm v4", "      1.5 s  1 passed, 1 failed     it is"),
        *("", "etcd; helm v4", "      0.0 s  1 skipped              it comes"),
    ]


def test_what_was_skipped_is_counted_with_its_reason() -> None:
    def check(result: str, why: str = "") -> Check:
        return Check(name="test_lag.py::test_it", real=[], result=result, seconds=0.0, why=why)

    assert not_proved([check("passed"), check("failed", "it broke")]) == []
    assert not_proved([check("skipped", "no KEDA"), check("passed"), *(check("skipped", "no etcd") for _ in "ab")]) == [
        *("", "NOT PROVED: 3 of 4 checks were skipped", "      2  no etcd", "      1  no KEDA"),
        "With MILLSTREAM_MUST=1 what is missing on this machine fails instead.",
    ]


@pytest.mark.parametrize(
    ("must", "outcome"),
    [("", pytest.skip.Exception), ("1", pytest.fail.Exception)],
    ids=["may-be-skipped", "must-be-proved"],
)
def test_without_its_programs_a_test_is_skipped_or_where_all_must_be_proved_it_fails(
    must: str, outcome: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("MILLSTREAM_MUST", must)

    with pytest.raises(
        outcome, match=rf"no etcd in {tmp_path}/etcd-v[\d.]+: python -m tests\.deploy\.plane_tools says why"
    ):
        built(ETCD)
