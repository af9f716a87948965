"""Where model packages are kept: a folder that trainer writes and serving and drift read."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

from millstream.contracts.events import ModelRef
from millstream.contracts.package import (
    MANIFEST_FILE,
    MODEL_FILE,
    REMOTE_FILE,
    BadPackage,
    Manifest,
    check_file,
    read_manifest,
)
from millstream.errors import RetryLater

MAX_FILE_BYTES = 512 * 1024 * 1024
"""A package file above this is not loaded: it would not fit beside the others in a serving pod."""

GIVEN = "given"
"""Folder of the graphs that were made elsewhere."""
MOST_GIVEN = 20
"""Of them are kept, the newest: a run copies what it judges into its package."""

DRAFT = ".draft-"
"""What the folder of a package that is being written is called, until it is whole."""


class PackageStore:
    """Packages under one root, `file://` or a plain path. Readers only take what lies under the root."""

    def __init__(self, root: str) -> None:
        parsed = urlparse(root)
        if parsed.scheme not in ("", "file"):
            raise ValueError(f"packages: {root!r} is not a folder; this release reads file:// and plain paths")
        self._root = Path(unquote(parsed.path) if parsed.scheme else root).resolve()

    def save(self, name: str, files: dict[str, bytes]) -> tuple[str, str]:
        """Write a package in one step: it is there whole or not at all. Returns (uri, sha256 of the manifest).

        A package that is already there under this name is replaced: names carry the run and its attempt.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=DRAFT))
        try:
            for file, raw in files.items():
                (draft / file).write_bytes(raw)
            if target.exists():
                shutil.rmtree(target)
            os.replace(draft, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return target.as_uri(), hashlib.sha256(files[MANIFEST_FILE]).hexdigest()

    def give(self, raw: bytes) -> str:
        """Keep a graph that was made elsewhere, for a run to judge. Returns its sha256. Raises OSError."""
        sha256, folder = hashlib.sha256(raw).hexdigest(), self._root / GIVEN
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder, prefix=DRAFT))
        try:
            (draft / MODEL_FILE).write_bytes(raw)
            os.replace(draft / MODEL_FILE, folder / f"{sha256}.onnx")
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        for old in sorted(folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime)[:-MOST_GIVEN]:
            old.unlink(missing_ok=True)
        return sha256

    def is_given(self, sha256: str) -> bool:
        """Whether such a graph is here."""
        return (self._root / GIVEN / f"{sha256}.onnx").is_file()

    def given(self, sha256: str) -> bytes:
        """The graph, hash checked. Raises BadPackage."""
        file = self._root / GIVEN / f"{sha256}.onnx"
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise BadPackage(f"{GIVEN}/{file.name} is larger than {MAX_FILE_BYTES} bytes")
            raw = file.read_bytes()
        except OSError as error:
            raise BadPackage(f"{GIVEN}/{file.name} is not among the packages: {error.strerror}") from error
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise BadPackage(f"{GIVEN}/{file.name} is not what its name says: its hash is another")
        return raw

    def sweep(self, older_than: float, unclaimed: Callable[[str, str], bool] = lambda loop, name: False) -> int:
        """Remove what writers that were killed left behind: drafts, in the middle of `save`, and packages that are `unclaimed`
        (of a loop, by name), between `save` and their word. Say how many that were.

        Only what nothing was added to for `older_than` seconds: above that no writer is still at it. Raises OSError.
        """
        swept = 0
        for folder in self._root.glob("*/*/"):
            with suppress(FileNotFoundError):  # saved, or swept by another, meanwhile
                draft = folder.name.startswith(DRAFT)
                if not (draft or unclaimed(folder.parent.name, folder.name)):
                    continue
                if time.time() - folder.stat().st_mtime > older_than:
                    # A reader finds a package whole or not at all, also where this is killed in the middle.
                    gone = folder if draft else folder.rename(folder.parent / f"{DRAFT}gone-{folder.name}")
                    shutil.rmtree(gone)
                    swept += 1
        return swept

    def find(self, loop: str, version: str) -> ModelRef:
        """The package of a version that a person names, without a record of it: its hash is that of what lies here.

        The newest where several attempts at one run left some. Raises BadPackage, naming the versions that there are.
        """
        known: set[str] = set()
        found: list[tuple[float, ModelRef]] = []
        for path in (self._root / loop).glob(f"*/{MANIFEST_FILE}"):
            if path.parent.name.startswith(DRAFT):
                continue
            with suppress(OSError, BadPackage):  # removed, or half of one: none of those there are
                raw = path.read_bytes()
                sha256 = hashlib.sha256(raw).hexdigest()
                one = read_manifest(raw, sha256)
                known.add(one.version)
                if (one.loop, one.version) == (loop, version):
                    uri = path.parent.as_uri()
                    ref = ModelRef(version=version, run=one.run, uri=uri, sha256=sha256, at=one.lineage.at)
                    found.append((path.stat().st_mtime, ref))
        if not found:
            there = ", ".join(sorted(known, key=lambda one: (len(one), one))) or "none"
            raise BadPackage(f"no version {version!r:.60} of {loop} in {self._root}; there are {there}")
        return max(found, key=lambda one: one[0])[1]

    def manifest(self, ref: ModelRef) -> Manifest:
        """The manifest that a model record points at, hash checked. Raises BadPackage, RetryLater."""
        return read_manifest(self._read(ref, MANIFEST_FILE), ref.sha256)

    def file(self, ref: ModelRef, manifest: Manifest, name: str) -> bytes:
        """One file of a package, hash checked. Raises BadPackage, RetryLater."""
        if name == MODEL_FILE and REMOTE_FILE in manifest.files:
            raise BadPackage(f"version {ref.version} is asked where it runs: its package has no graph")
        return check_file(manifest, name, self._read(ref, name))

    def _read(self, ref: ModelRef, name: str) -> bytes:
        parsed = urlparse(ref.uri)
        if parsed.scheme != "file":
            raise BadPackage(f"{ref.uri}: only file:// packages are read")
        path = (Path(unquote(parsed.path)) / name).resolve()
        if not path.is_relative_to(self._root):
            raise BadPackage(f"{ref.uri} lies outside the package folder")
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BadPackage(f"{name} of {ref.version} is larger than {MAX_FILE_BYTES} bytes")
            return path.read_bytes()
        except FileNotFoundError as error:
            raise BadPackage(f"{name} of version {ref.version} is missing at {ref.uri}") from error
        except OSError as error:
            raise RetryLater(f"cannot read {name} of version {ref.version}: {error}") from error
