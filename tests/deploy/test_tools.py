"""Tools are built once, whole or not at all, and who cannot build them hears why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from millstream.testing.cache import one_at_a_time

from . import delivery_schemas, kube_schemas, tools
from .kube_schemas import kinds_of, strictly, versions_of
from .tools import TOOLS, NoTool, build, building, go_folder


def test_without_go_the_message_says_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(NoTool, match=r"^helm v[\d.]+ is built by Go 1.26 or newer, and there is no Go here$"):
        build(TOOLS[0], tmp_path)


def test_with_an_old_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "go_version", lambda: (1, 19))

    with pytest.raises(NoTool, match=r"and this Go is 1.19$"):
        build(TOOLS[0], tmp_path)


def test_what_is_there_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    there = TOOLS[0].path(tmp_path)
    there.parent.mkdir(parents=True)
    there.touch()

    assert build(TOOLS[0], tmp_path) == there


def test_where_all_is_built_nobody_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(tools, "BUILT_WITHIN", 0.0)
    (go_folder() / "modules").mkdir(parents=True)  # of the run below
    with one_at_a_time(tmp_path / "deploy-tools.lock", "builds meanwhile"):
        assert tools.main() == 1
        said = capsys.readouterr()
        assert "another process that builds the charts' tools" in said.err
        for path in [tool.path(tmp_path) for tool in TOOLS]:
            path.parent.mkdir()
            path.touch()
        for folder in (kube_schemas.folder(tmp_path), delivery_schemas.folder(tmp_path)):
            folder.mkdir()

        assert tools.main() == 0

    assert (go_folder() / "modules").exists(), "what another builds with is not ours to remove"


def test_who_built_removes_what_go_kept_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path))
    with building(tmp_path):
        (go_folder() / "modules").mkdir(parents=True)
        (go_folder() / "modules").chmod(0o500)

    assert not go_folder().exists()


def test_a_strict_schema_refuses_unknown_fields_wherever_fields_are_named() -> None:
    said = strictly(
        {
            "type": "object",
            "properties": {
                "port": {"type": "string", "format": "int-or-string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {}}},
                "description": {"type": "string", "description": "A field of that name stays."},
            },
        }
    )

    assert said == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "port": {"type": ["string", "integer"]},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "raw": {"type": "object", "properties": {"a": {}}},
            "description": {"type": "string"},
        },
    }


def test_a_kind_carries_what_it_refers_to_and_no_more() -> None:
    pod = {"properties": {"spec": {"$ref": "#/definitions/Spec"}}, "type": "object"}
    known = {"x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}]}
    definitions = {"Pod": pod | known, "Spec": {"type": "object"}, "Other": {"type": "object"}}

    ((name, schema),) = kinds_of(definitions)

    assert name == "pod-v1.json"
    assert set(schema["definitions"]) == {"Spec"}


def test_a_version_of_a_crd_that_is_not_served_is_none() -> None:
    old = {"name": "v1alpha1", "served": False}
    now = {"name": "v1", "served": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {}}}}}
    crd = {
        "kind": "CustomResourceDefinition",
        "spec": {"group": "keda.sh", "names": {"kind": "ScaledObject"}, "versions": [old, now]},
    }

    ((name, schema),) = versions_of(crd)

    assert name == "scaledobject-keda-v1.json"
    assert set(schema["properties"]) == {"spec", "apiVersion", "kind", "metadata"}
