"""A model package is served only when it is, byte for byte, what its record promised."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec
import pytest

from millstream.contracts.events import Cause, ModelRef
from millstream.contracts.package import (
    MANIFEST_FILE,
    MODEL_FILE,
    BadPackage,
    InputColumn,
    Lineage,
    Manifest,
    check_file,
    read_manifest,
)
from millstream.contracts.times import to_datetime
from millstream.runtime.packages import DRAFT, PackageStore

GRAPH = b"a graph"
MANIFEST = Manifest(
    format=1,
    loop="flight-delay",
    version="v1",
    run="flight-delay-8f14e45f",
    task="binary",
    inputs=[InputColumn(name="distance", source="input", type="number")],
    output="probability",
    feature_service="delay_v1",
    views={"origin_1h": "3f2a91c0"},
    label="arr_delay >= 15",
    metrics={"log_loss": 0.47},
    lineage=Lineage(
        cause=Cause.FIRST_MODEL,
        request="r1",
        at=to_datetime(0),
        positions={"flights-landed": {0: 17}},
        train_rows=20_000,
        holdout_rows=2_000,
        content_sha256="0" * 64,
        code_version="0.1.0",
        libraries={"lightgbm": "4.6.0"},
    ),
    files={MODEL_FILE: hashlib.sha256(GRAPH).hexdigest()},
)
RAW = msgspec.json.encode(MANIFEST)
SHA = hashlib.sha256(RAW).hexdigest()


def ref(uri: str, sha256: str = SHA) -> ModelRef:
    return ModelRef(version="v1", run=MANIFEST.run, uri=uri, sha256=sha256, at=to_datetime(0))


def test_a_manifest_comes_back_the_same() -> None:
    assert read_manifest(RAW, SHA) == MANIFEST


def test_a_manifest_that_was_touched_is_refused() -> None:
    with pytest.raises(BadPackage, match=r"manifest.json has sha256"):
        read_manifest(RAW.replace(b"0.47", b"0.07"), SHA)


def test_a_manifest_of_another_format_is_refused() -> None:
    raw = msgspec.json.encode(msgspec.structs.replace(MANIFEST, format=2))
    with pytest.raises(BadPackage, match="format 2; this release reads format 1"):
        read_manifest(raw, hashlib.sha256(raw).hexdigest())


def test_a_file_that_was_touched_or_never_promised_is_refused() -> None:
    assert check_file(MANIFEST, MODEL_FILE, GRAPH) == GRAPH
    with pytest.raises(BadPackage, match=r"model.onnx has sha256"):
        check_file(MANIFEST, MODEL_FILE, GRAPH + b"!")
    with pytest.raises(BadPackage, match="the manifest says nothing"):
        check_file(MANIFEST, "setup.py", b"import os")


def test_a_package_is_saved_whole_and_read_back(tmp_path: Path) -> None:
    store = PackageStore(str(tmp_path / "packages"))

    uri, sha = store.save("flight-delay/v1", {MODEL_FILE: GRAPH, MANIFEST_FILE: RAW})

    assert sha == SHA
    assert store.file(ref(uri), store.manifest(ref(uri)), MODEL_FILE) == GRAPH
    assert list((tmp_path / "packages" / "flight-delay").iterdir()) == [tmp_path / "packages" / "flight-delay" / "v1"]


def test_a_second_attempt_replaces_the_first(tmp_path: Path) -> None:
    store = PackageStore((tmp_path / "packages").as_uri())
    store.save("v1", {MODEL_FILE: b"half", MANIFEST_FILE: b"{}"})

    uri, _ = store.save("v1", {MODEL_FILE: GRAPH, MANIFEST_FILE: RAW})

    assert store.manifest(ref(uri)) == MANIFEST


@pytest.mark.parametrize("uri", ["file:///etc", "{root}/../outside", "https://example.org/v1", "v1"])
def test_what_lies_outside_of_the_package_folder_is_not_read(tmp_path: Path, uri: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / MANIFEST_FILE).write_bytes(RAW)
    store = PackageStore(str(tmp_path / "packages"))

    with pytest.raises(BadPackage, match=r"outside|only file"):
        store.manifest(ref(uri.format(root=(tmp_path / "packages").as_uri())))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / MANIFEST_FILE).write_bytes(RAW)
    (tmp_path / "packages" / "v1").symlink_to(tmp_path / "outside")

    with pytest.raises(BadPackage, match="outside"):
        PackageStore(str(tmp_path / "packages")).manifest(ref((tmp_path / "packages" / "v1").as_uri()))


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPackage, match=r"manifest.json of version v1 is missing"):
        PackageStore(str(tmp_path)).manifest(ref((tmp_path / "v1").as_uri()))


def test_packages_elsewhere_than_in_a_folder_are_refused_at_start() -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        PackageStore("s3://bucket/packages")


def test_what_a_killed_writer_left_is_swept_and_what_is_being_written_or_whole_is_not(tmp_path: Path) -> None:
    store = PackageStore(str(tmp_path))
    store.save("tides/1-r1-1", {"manifest.json": b"{}"})
    abandoned, fresh = (tmp_path / "tides" / f"{DRAFT}{name}" for name in ("abandoned", "fresh"))
    for draft in (abandoned, fresh):
        draft.mkdir()
        (draft / "model.onnx").write_bytes(b"half")
    os.utime(abandoned, (time.time() - 3601,) * 2)
    os.utime(tmp_path / "tides" / "1-r1-1", (time.time() - 3601,) * 2)

    assert store.sweep(3600) == 1
    assert sorted(path.name for path in (tmp_path / "tides").iterdir()) == [f"{DRAFT}fresh", "1-r1-1"]
    assert store.sweep(3600) == 0
    assert PackageStore(str(tmp_path / "nothing yet")).sweep(0) == 0


def test_a_whole_package_that_nobody_claims_is_swept_once_it_is_old(tmp_path: Path) -> None:
    store = PackageStore(str(tmp_path))
    for name in ("tides/1-a1-1", "tides/2-b2-1", "tides/3-c3-1", "ebbs/2-b2-1"):
        store.save(name, {"manifest.json": b"{}"})
    store.give(b"a graph from elsewhere")
    for old in tmp_path.glob("*/*"):
        if old.name != "3-c3-1":
            os.utime(old, (time.time() - 3601,) * 2)

    assert store.sweep(3600, lambda loop, name: loop == "tides" and name != "1-a1-1") == 1
    assert sorted(path.name for path in (tmp_path / "tides").iterdir()) == ["1-a1-1", "3-c3-1"]
    assert (tmp_path / "ebbs" / "2-b2-1").exists()
    assert len(list((tmp_path / "given").iterdir())) == 1
