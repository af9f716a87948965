"""Training runs of a backtest: the trainer's own, in this process; a run that another policy made already is not made twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import msgspec

from millstream.contracts.events import ModelRef
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, NATIVE_FILE, Manifest
from millstream.project import Loop
from millstream.project.params import BUILT_IN
from millstream.runtime.packages import PackageStore
from millstream_backtest.past import Past, PastHistory
from millstream_trainer.adapters.mlflow_tracker import NoTracker
from millstream_trainer.adapters.package_files import LIBRARIES
from millstream_trainer.adapters.phases import Phases
from millstream_trainer.adapters.run import train
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.package import files_of, name_of
from millstream_trainer.domain.run import RunResult, RunSpec

KEPT = 200
"""Runs in the folder, two megabytes each: some years of some policies. What was used longest ago goes first."""
RESULT = "result.json"
COST = "cost.json"
LAYOUT = "2"
"""Of an entry. One of another is not found, and goes when it was used longest ago."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What making a run took."""

    cpu_seconds: float


class KeptRun(NamedTuple):
    """An entry."""

    result: RunResult
    files: dict[str, bytes]
    cost: Cost


class RunFolder:
    """Runs by what went into them. Several processes may use one folder: an entry is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> KeptRun | None:
        entry = self._folder / key
        try:
            result = msgspec.json.decode((entry / RESULT).read_bytes(), type=RunResult)
            cost = msgspec.json.decode((entry / COST).read_bytes(), type=Cost)
            manifest = (entry / MANIFEST_FILE).read_bytes()
            named = msgspec.json.decode(manifest, type=Manifest).files
            files = {**{name: (entry / name).read_bytes() for name in named}, MANIFEST_FILE: manifest}
            os.utime(entry)
        except (OSError, msgspec.DecodeError):
            return None  # it was never made, or is being removed
        return KeptRun(result, files, cost)

    def keep(self, key: str, run: KeptRun) -> None:
        draft = Path(tempfile.mkdtemp(dir=self._folder, prefix=".draft-"))
        own = {RESULT: msgspec.json.encode(run.result), COST: msgspec.json.encode(run.cost)}
        try:
            for name, raw in {**run.files, **own}.items():
                (draft / name).write_bytes(raw)
            draft.rename(self._folder / key)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)  # another process was first, or the disk is full: nothing is lost
        entries = [entry for entry in self._folder.iterdir() if not entry.name.startswith(".")]
        for old in sorted(entries, key=_used)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def _used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


class Runs:
    """`ports.Executor` of the trainer. Blocks while it trains: a backtest's time waits for it, as a replay's does."""

    outlives = False

    def __init__(
        self, past: Past, loop: Loop, *, project: Path, packages: PackageStore, folder: RunFolder, threads: int
    ) -> None:
        self._loop = loop
        self._project = project
        self._history = PastHistory(past, loop)
        self._packages = packages
        self._folder = folder
        self._threads = threads
        self.seconds = 0.0
        """Spent on runs, by the clock."""
        self.cpu_seconds = 0.0
        """What all runs took where they were made, here or by whoever made them first: the same for the same runs."""
        self.found = 0
        """Runs that were in the folder."""

    async def prepare(self) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Nothing is left behind."""

    async def run(self, spec: RunSpec) -> RunResult:
        began = time.perf_counter()
        try:
            data = self._history.read(spec)
            # What a user's own module builds is decided by more than the loop's file says.
            key = self._key(spec, data) if self._loop.model.estimator in BUILT_IN else None
            known = self._folder.find(key) if key is not None else None
            if known is None:
                return self._make(spec, data, key)
            self.found += 1
            self.cpu_seconds += known.cost.cpu_seconds
            return self._again(spec, known.result, known.files)
        finally:
            self.seconds += time.perf_counter() - began

    def _make(self, spec: RunSpec, data: Dataset, key: str | None) -> RunResult:
        """Train, and keep what came of it under `key`; a run that fails costs as well."""
        _libraries()
        began = time.process_time()
        try:
            result = self._train(spec, data)
        except BaseException:
            self.cpu_seconds += time.process_time() - began
            raise
        cost = Cost(cpu_seconds=round(time.process_time() - began, 3))
        if key is not None:
            manifest = self._packages.manifest(result.model)
            files = {name: self._packages.file(result.model, manifest, name) for name in manifest.files}
            self._folder.keep(key, KeptRun(result, {**files, MANIFEST_FILE: msgspec.json.encode(manifest)}, cost))
            there = self._folder.find(key)  # another process may have made it at the same time, and been first
            cost = cost if there is None else there.cost
        self.cpu_seconds += cost.cpu_seconds
        return result

    def _train(self, spec: RunSpec, data: Dataset) -> RunResult:
        tracking = Tracking()
        tracking.begin(NoTracker(), spec, {})
        return train(
            spec,
            self._loop,
            history=_Read(data),
            tracking=tracking,
            packages=self._packages,
            threads=self._threads,
            phases=Phases(),
            project=self._project,
        )

    def _again(self, spec: RunSpec, result: RunResult, files: dict[str, bytes]) -> RunResult:
        """The same model under this policy's names."""
        manifest = msgspec.json.decode(files.pop(MANIFEST_FILE), type=Manifest)
        lineage = msgspec.structs.replace(manifest.lineage, cause=spec.cause, request=spec.request)
        manifest = msgspec.structs.replace(manifest, version=spec.version, run=spec.run, lineage=lineage)
        uri, sha256 = self._packages.save(_name(spec), files_of(manifest, files))
        model = ModelRef(version=spec.version, run=spec.run, uri=uri, sha256=sha256, at=spec.at)
        return msgspec.structs.replace(result, model=model)

    def _key(self, spec: RunSpec, data: Dataset) -> str:
        """Of all that decides what comes of a run, but for the names it goes by."""
        champion = ""
        if spec.champion is not None:
            files = self._packages.manifest(spec.champion).files
            # What a warm start goes on from is decided by more than the graph: it also tells what was learned until when.
            champion = f"{files[MODEL_FILE]} {files.get(NATIVE_FILE, '')}"
            champion += spec.champion.version if self._loop.model.goes_on else ""  # the run's reason names it
        loop = self._loop.model_dump_json(include={"loop", "predict", "label", "model", "train", "gate"})
        broken = " ".join(
            f"{start.isoformat()}/{end.isoformat()}" for start, end in (*spec.broken, *spec.broken_labels)
        )
        changed = "" if spec.changed_at is None else spec.changed_at.isoformat()
        code = []
        for name in ("millstream-trainer", *LIBRARIES):
            with suppress(PackageNotFoundError):  # XGBoost goes by several names
                code.append(f"{name} {version(name)}")
        parts = (LAYOUT, data.table.sha256(), loop, champion, spec.at.isoformat(), changed, broken, *code)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def _libraries() -> None:
    """Two seconds of importing are no run's cost: live, a fork server has done it."""
    for name in ("lightgbm", "onnx", "onnxmltools", "skl2onnx"):
        import_module(name)


class _Read:
    """`ports.History` of rows that were read already."""

    def __init__(self, data: Dataset) -> None:
        self._data = data

    def read(self, spec: RunSpec) -> Dataset:
        return self._data


def _name(spec: RunSpec) -> str:
    return f"{spec.loop}/{name_of(spec)}"
