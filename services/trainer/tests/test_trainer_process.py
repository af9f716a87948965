"""A real training process on a real lake, with real Feast definitions: forked warm, bounded, and gone with its trainer."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.contracts.package import MODEL_FILE, Manifest, Origin
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters import process_executor
from millstream_trainer.adapters.process_executor import ProcessExecutor
from millstream_trainer.adapters.project_code import code_of
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import PHASES, RunSpec
from millstream_trainer.errors import RunFailed

Until = Callable[..., Any]

pytestmark = pytest.mark.timeout(400)
"""Each starts processes that import Feast, and the slowest run twice: a minute where others want both cores too."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, harbour: Path) -> Workplace:
    home = tmp_path_factory.mktemp("workplace")
    return Workplace(
        project=str(harbour),
        lake=str(home / "lake"),
        packages=str(home / "packages"),
        mlflow=None,
        data=str(home / "data"),
        threads=1,
        lake_patience=0.2,
        mlflow_patience=1.0,
        log_level="WARNING",
    )


@pytest.fixture(scope="session")
def spec(place: Workplace, first_run: Callable[[str], RunSpec]) -> RunSpec:
    return first_run(place.lake)


@pytest.fixture
async def executor(place: Workplace) -> AsyncIterator[ProcessExecutor]:
    made = ProcessExecutor(place=place, timeout=300, untracked=pytest.fail)
    yield made
    await made.close()


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A tracking server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def tracked_at(server: socket.socket, place: Workplace, patience: float) -> Workplace:
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    return msgspec.structs.replace(place, mlflow=url, mlflow_patience=patience)


async def test_a_run_trains_on_the_lake_as_known_then_and_packs_the_model(
    executor: ProcessExecutor, spec: RunSpec, place: Workplace
) -> None:
    result = await executor.run(spec)
    assert result.passed, result.reason
    packages = PackageStore(place.packages)
    manifest = packages.manifest(result.model)
    assert [i.name for i in manifest.inputs] == [
        "pier_arrivals__mean_delay_6h",
        "pier_arrivals__ships_6h",
        "length",
        "pier",
    ]
    lineage = manifest.lineage
    assert (lineage.positions, lineage.lake) == (spec.positions, place.lake)
    assert lineage.recipe is not None
    assert lineage.recipe.params["rounds"] == 40
    assert lineage.project_sha256 == code_of(Path(place.project)).sha256 != ""
    # 3,000 ships: one in twenty never came, and of the others one in fifty came without a delay.
    assert manifest.lineage.train_rows + manifest.lineage.holdout_rows == 2850 - 60
    assert (result.metrics["left_out_without_label"], result.metrics["left_out_label_null"]) == (210, 60)
    assert result.metrics["auc"] > 0.7
    assert packages.file(result.model, manifest, MODEL_FILE)
    assert manifest.origins == {
        "pier_arrivals__mean_delay_6h": Origin(stream="ships-arrived", field="delay"),
        "pier_arrivals__ships_6h": Origin(stream="ships-arrived", field="delay"),
        "length": Origin(stream="ships-expected", field="length"),
        "pier": Origin(stream="ships-expected", field="pier"),
    }
    assert {name for name in result.metrics if name.startswith("seconds_")} == {
        f"seconds_{phase}" for phase in ("start", "mlflow", "dataset", "choice", "fit", "export", "score", "package")
    }
    again = await executor.run(msgspec.structs.replace(spec, attempt=2))
    assert packages.manifest(again.model).lineage.content_sha256 == manifest.lineage.content_sha256
    assert packages.manifest(again.model).files == manifest.files


@pytest.mark.parametrize(("task", "value"), [("regression", "delay"), ("multiclass", "pier")])
async def test_labels_are_numbers_and_names_out_of_the_lake(
    place: Workplace, spec: RunSpec, harbour: Path, tmp_path: Path, task: str, value: str
) -> None:
    loop = _with_another_loop(harbour, tmp_path / "project", task, value)
    here = msgspec.structs.replace(place, project=str(loop), packages=str(tmp_path / "packages"))
    executor = ProcessExecutor(place=here, timeout=300, untracked=pytest.fail)
    result = await executor.run(msgspec.structs.replace(spec, loop="other", run="r1"))
    manifest = PackageStore(here.packages).manifest(result.model)
    rows = manifest.lineage.train_rows + manifest.lineage.holdout_rows
    if task == "regression":
        assert result.passed, result.reason
        assert (manifest.output, result.metrics["r2"] > 0.3) == ("value", True)
        assert rows == 2850 - 60
    else:
        # The pier stands in the question: whoever learns from it is never wrong.
        assert (manifest.classes, result.metrics["accuracy"]) == (["east", "north", "west"], 1.0)
        assert rows < 2850, "ships at no pier carry no label"


def _with_another_loop(harbour: Path, project: Path, task: str, value: str) -> Path:
    shutil.copytree(harbour, project)
    text = (project / "loops" / "tides.yaml").read_text().replace("loop: tides", "loop: other")
    text = text.replace("value: delay >= 10", f"value: {value}").replace("model: {", f"model: {{task: {task}, ")
    (project / "loops" / "other.yaml").write_text(text)
    return project


async def test_a_run_knows_nothing_later_than_its_time(executor: ProcessExecutor, spec: RunSpec) -> None:
    early = msgspec.structs.replace(spec, run="r2", at=datetime(2013, 2, 10, tzinfo=UTC))
    result = await executor.run(early)
    rows = result.metrics["train_rows"] + result.metrics["holdout_rows"]
    assert rows == pytest.approx(2790 * 40 / 60, rel=0.05)


async def test_a_lake_that_is_behind_fails_the_run_with_its_offsets(executor: ProcessExecutor, spec: RunSpec) -> None:
    ahead = msgspec.structs.replace(spec, run="r3", positions={"ships-arrived": {0: 99_999}})
    with pytest.raises(RunFailed, match=r"ships-arrived.*99999"):
        await executor.run(ahead)


async def test_a_killed_training_process_is_a_failed_run(
    executor: ProcessExecutor, spec: RunSpec, until: Until
) -> None:
    running = asyncio.create_task(executor.run(msgspec.structs.replace(spec, run="r4")))
    await until(lambda: executor.pids != [])
    os.kill(executor.pids[0], signal.SIGKILL)
    with pytest.raises(RunFailed, match="ended with signal 9"):
        await running


LINGERS = """
import time
from millstream_trainer.adapters import phases, training_process

PHASE, span = {phase!r}, phases.span

def lingers(name):
    if name == PHASE:
        time.sleep(600)
    return span(name)

def main(*told):
    phases.span = lingers
    training_process.main(*told)
"""
"""A training process that stays in a phase until it is killed, however late its trainer hears that it has begun."""


@pytest.mark.parametrize("phase", PHASES)
async def test_a_run_that_is_killed_in_any_phase_leaves_no_model(
    place: Workplace, spec: RunSpec, harbour: Path, tmp_path: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a loop that goes through all of them; a new one is refused by `Phases` until it stands in this list."""
    saves = PHASES[PHASES.index("package") :]
    if phase not in saves:  # in those the kill may come at any moment
        name = f"lingers_in_{phase}"
        (tmp_path / f"{name}.py").write_text(LINGERS.format(phase=phase))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(process_executor, "training_process", importlib.import_module(name))
    shutil.copytree(harbour, tmp_path / "project")
    loop = tmp_path / "project" / "loops" / "tides.yaml"
    loop.write_text(loop.read_text().replace("train: {", "train: {refit: true, "))
    seen: list[str | None] = []

    def heard(loop: str, now: str | None) -> None:
        seen.append(now)
        if now == phase:
            with suppress(ProcessLookupError):  # a run at its end may be faster than the kill
                os.kill(executor.pids[0], signal.SIGKILL)

    here = msgspec.structs.replace(place, project=str(tmp_path / "project"), packages=str(tmp_path / "packages"))
    executor = ProcessExecutor(place=here, timeout=300, untracked=pytest.fail, phase=heard)
    told = msgspec.structs.replace(spec, run=f"r-{phase}")
    try:
        await executor.run(told)
    except RunFailed as error:
        assert "ended with signal 9" in str(error)  # noqa: PT017  as above
    else:
        assert phase in saves
    assert (phase in seen, seen[-1]) == (True, None)
    if phase not in saves:
        assert not list((tmp_path / "packages").glob("tides/*"))
    _whole_or_not_at_all(tmp_path / "packages")


def _whole_or_not_at_all(packages: Path) -> None:
    for found in packages.glob("tides/[!.]*"):
        manifest = msgspec.json.decode((found / "manifest.json").read_bytes(), type=Manifest)
        assert {file.name for file in found.iterdir()} == {*manifest.files, "manifest.json"}


async def test_a_run_that_takes_too_long_is_ended(place: Workplace, spec: RunSpec) -> None:
    hurried = ProcessExecutor(place=place, timeout=0.001, untracked=pytest.fail)
    with pytest.raises(RunFailed, match="longer than"):
        await hurried.run(msgspec.structs.replace(spec, run="r5"))
    assert not hurried.pids


async def test_a_run_that_is_cancelled_leaves_no_process(
    executor: ProcessExecutor, spec: RunSpec, until: Until
) -> None:
    running = asyncio.create_task(executor.run(msgspec.structs.replace(spec, run="r6")))
    await until(lambda: executor.pids != [])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not executor.pids


async def test_a_run_that_is_cancelled_while_its_process_starts_leaves_none(
    place: Workplace, spec: RunSpec, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = ProcessExecutor(
        place=msgspec.structs.replace(place, lake_patience=600), timeout=600, untracked=pytest.fail
    )
    asked, start = threading.Event(), ForkServerProcess.start

    def seen(process: ForkServerProcess) -> None:
        asked.set()
        start(process)

    monkeypatch.setattr(ForkServerProcess, "start", seen)
    endless = msgspec.structs.replace(spec, run="r6", positions={"ships-arrived": {0: 99_999}})
    running = asyncio.create_task(executor.run(endless))
    await until(asked.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.get_running_loop().shutdown_default_executor()  # the thread has what it asked for
    await until(lambda: not multiprocessing.active_children())


@pytest.mark.parametrize("server", ["hangs", "is away"])
async def test_a_tracking_server_costs_a_run_its_record_and_nothing_else(
    place: Workplace, spec: RunSpec, until: Until, mute: socket.socket, server: str
) -> None:
    untracked: list[str] = []
    unwell = tracked_at(mute, place, patience=1)
    if server == "is away":
        mute.close()
    executor = ProcessExecutor(place=unwell, timeout=300, untracked=untracked.append)
    result = await executor.run(msgspec.structs.replace(spec, run=f"r7 {server}"))
    assert result.passed, result.reason
    assert result.mlflow_run is None
    assert (len(executor.pids), untracked) == (1, [])  # it has answered, and is still at its record
    await until(lambda: untracked == ["tides"])
    assert not executor.pids


async def test_a_trainer_that_stops_does_not_wait_long_for_a_record(
    place: Workplace, spec: RunSpec, mute: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_executor, "LAST_MOMENT", 0.1)
    untracked: list[str] = []
    executor = ProcessExecutor(place=tracked_at(mute, place, patience=600), timeout=300, untracked=untracked.append)
    await executor.run(msgspec.structs.replace(spec, run="r8"))
    await executor.close()
    assert (executor.pids, untracked) == ([], ["tides"])


TRAINER = """
import asyncio, sys, msgspec
from millstream_trainer.adapters.process_executor import ProcessExecutor
from millstream_trainer.adapters.project_code import code_of
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunSpec

async def main(place, spec, busy_with):
    executor = ProcessExecutor(place=place, timeout=600, untracked=print)
    running = asyncio.create_task(executor.run(spec))
    if busy_with == "its record":
        await running
    while not executor.pids:
        await asyncio.sleep(0.01)
    print("busy", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*(msgspec.json.decode(arg, type=kind) for arg, kind in zip(sys.argv[1:], (Workplace, RunSpec, str)))))
"""


@pytest.mark.parametrize("busy_with", ["the lake", "its record"])
async def test_a_training_process_ends_with_its_trainer(
    place: Workplace, spec: RunSpec, mute: socket.socket, busy_with: str
) -> None:
    patient = msgspec.structs.replace(tracked_at(mute, place, patience=600), lake_patience=600)
    ahead = {"ships-arrived": {0: 99_999}} if busy_with == "the lake" else spec.positions
    told = msgspec.structs.replace(spec, run="r9", positions=ahead)
    args = [msgspec.json.encode(arg).decode() for arg in (patient, told, busy_with)]
    trainer = await asyncio.create_subprocess_exec(sys.executable, "-c", TRAINER, *args, stdout=asyncio.subprocess.PIPE)
    assert trainer.stdout is not None
    async with asyncio.timeout(240):
        try:
            while await trainer.stdout.readline() not in (b"busy\n", b""):
                pass
        finally:
            trainer.kill()
        # All that it started holds the same stdout: its end is theirs.
        await trainer.stdout.read()
        assert await trainer.wait() == -signal.SIGKILL


def test_what_is_preloaded_starts_no_threads_that_a_fork_would_lose() -> None:
    import subprocess

    code = (
        "import millstream_trainer.adapters.preload, glob\n"
        "print({open(p).read().strip() for p in glob.glob('/proc/self/task/*/comm')})"
    )
    if not os.path.exists("/proc/self/task"):
        pytest.skip("threads are named in /proc, which this system does not have")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = set(said.strip("{}\n").replace("'", "").split(", "))
    assert {name for name in names if not name.startswith(("python", "jemalloc", "polars-ooc"))} == set()


def test_the_dispatcher_stays_light() -> None:
    import subprocess

    heavy = ("feast", "mlflow", "lightgbm", "polars", "onnx", "sklearn", "pandas", "numpy")
    code = f"import millstream_trainer.app, sys; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
