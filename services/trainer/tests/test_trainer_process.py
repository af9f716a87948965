"""A real training process on a real lake, with real Feast definitions: forked warm, bounded, and gone with its trainer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Cause
from millstream.contracts.package import MODEL_FILE
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.process_executor import ProcessExecutor
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed


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
def spec(place: Workplace, harbour: Path, ships: Any, fill_lake: Any) -> RunSpec:
    return RunSpec(
        loop="tides",
        run="r1",
        attempt=1,
        version="1",
        at=datetime(2013, 3, 3, tzinfo=UTC),
        cause=Cause.FIRST_MODEL,
        request="labels-60",
        positions=fill_lake(place.lake, harbour, ships),
        champion=None,
    )


@pytest.fixture
async def executor(place: Workplace) -> AsyncIterator[ProcessExecutor]:
    made = ProcessExecutor(place=place, timeout=100)
    yield made
    await made.close()


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
    assert manifest.lineage.positions == spec.positions
    # 3,000 ships: one in twenty never came, and of the others one in fifty came without a delay.
    assert manifest.lineage.train_rows + manifest.lineage.holdout_rows == 2850 - 60
    assert (result.metrics["left_out_without_label"], result.metrics["left_out_label_null"]) == (210, 60)
    assert result.metrics["auc"] > 0.7
    assert packages.file(result.model, manifest, MODEL_FILE)
    assert {name for name in result.metrics if name.startswith("seconds_")} == {
        f"seconds_{phase}" for phase in ("start", "mlflow", "dataset", "fit", "export", "score", "package")
    }
    again = await executor.run(msgspec.structs.replace(spec, attempt=2))
    assert packages.manifest(again.model).lineage.content_sha256 == manifest.lineage.content_sha256
    assert packages.manifest(again.model).files == manifest.files


async def test_a_run_knows_nothing_later_than_its_time(executor: ProcessExecutor, spec: RunSpec) -> None:
    early = msgspec.structs.replace(spec, run="r2", at=datetime(2013, 2, 10, tzinfo=UTC))
    result = await executor.run(early)
    rows = result.metrics["train_rows"] + result.metrics["holdout_rows"]
    assert rows == pytest.approx(2790 * 40 / 60, rel=0.05)


async def test_a_lake_that_is_behind_fails_the_run_with_its_offsets(executor: ProcessExecutor, spec: RunSpec) -> None:
    ahead = msgspec.structs.replace(spec, run="r3", positions={"ships-arrived": {0: 99_999}})
    with pytest.raises(RunFailed, match=r"ships-arrived.*99999"):
        await executor.run(ahead)


async def test_a_killed_training_process_is_a_failed_run(executor: ProcessExecutor, spec: RunSpec) -> None:
    running = asyncio.create_task(executor.run(msgspec.structs.replace(spec, run="r4")))
    async with asyncio.timeout(60):
        while not executor.pids:  # noqa: ASYNC110  a condition, not an event
            await asyncio.sleep(0.01)
    os.kill(executor.pids[0], signal.SIGKILL)
    with pytest.raises(RunFailed, match="ended with signal 9"):
        await running


async def test_a_run_that_takes_too_long_is_ended(place: Workplace, spec: RunSpec) -> None:
    hurried = ProcessExecutor(place=place, timeout=0.001)
    with pytest.raises(RunFailed, match="longer than"):
        await hurried.run(msgspec.structs.replace(spec, run="r5"))
    assert not hurried.pids


def test_what_is_preloaded_starts_no_threads_that_a_fork_would_lose() -> None:
    import subprocess
    import sys

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
    import sys

    heavy = ("feast", "mlflow", "lightgbm", "polars", "onnx", "sklearn", "pandas", "numpy")
    code = f"import millstream_trainer.app, sys; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
