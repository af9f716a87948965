"""A training Job's container, run here as a kubelet would: the same run as in a process, said beside the packages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.job_template import JobTemplate
from millstream_trainer.adapters.kubernetes_api import KubernetesApi
from millstream_trainer.adapters.kubernetes_jobs import KubernetesJobs
from millstream_trainer.adapters.process_executor import ProcessExecutor
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.workplace import workplace_of
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed
from millstream_trainer.settings import Settings

from .cluster import Cluster, new_cluster
from .job_manifest import manifest

Until = Callable[..., Any]

pytestmark = pytest.mark.timeout(400)
"""Up to three processes one after the other that import Feast and train: a minute was seen on busy cores."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with new_cluster(tmp_path) as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path, harbour: Path) -> Settings:
    return Settings(
        project=harbour,
        lake=str(tmp_path / "lake"),
        packages=str(tmp_path / "packages"),
        data=tmp_path / "data",
        train_threads=1,
        lake_patience=0.2,
        mlflow_patience=1,
        log_level="WARNING",
    )


@pytest.fixture
async def executor(cluster: Cluster, settings: Settings) -> AsyncIterator[KubernetesJobs]:
    told = settings.model_dump(include={"project", "data", "train_threads", "lake_patience", "log_level"})
    environment = {f"MILLSTREAM_{name.upper()}": str(value) for name, value in told.items()}
    made = KubernetesJobs(
        template=JobTemplate(
            manifest(cluster.namespace, settings.packages, **environment | {"MILLSTREAM_LAKE": settings.lake})
        ),
        api=KubernetesApi(cluster.namespace, cluster.kubeconfig),
        notes=RunNotes(settings.packages),
        deadline=300,
        patience=300,
        look=1,
        untracked=pytest.fail,
    )
    yield made
    await made.close()


@pytest.fixture
def spec(settings: Settings, first_run: Callable[[str], RunSpec]) -> RunSpec:
    return first_run(settings.lake)


async def test_a_job_makes_the_package_that_a_process_makes(
    executor: KubernetesJobs, cluster: Cluster, settings: Settings, spec: RunSpec, until: Until
) -> None:
    running = asyncio.create_task(executor.run(spec))
    await until(lambda: len(cluster.jobs()) == 1)
    await cluster.runs_for_real()
    result = await running
    assert result.passed, result.reason
    # A pod that takes the place of one which had its last word ends at once, and says the same.
    (note,) = (Path(settings.packages) / ".runs").glob("*.json")
    before = note.stat().st_mtime_ns
    assert await cluster.container_ends() == 0
    assert note.stat().st_mtime_ns == before

    beside = ProcessExecutor(place=workplace_of(settings), timeout=300, untracked=pytest.fail)
    try:
        again = await beside.run(msgspec.structs.replace(spec, attempt=2))
    finally:
        await beside.close()
    packages = PackageStore(settings.packages)
    assert packages.manifest(result.model).files == packages.manifest(again.model).files


async def test_a_job_that_fails_by_its_own_word_is_not_tried_again(
    executor: KubernetesJobs, cluster: Cluster, spec: RunSpec, until: Until
) -> None:
    ahead = msgspec.structs.replace(spec, positions={"ships-arrived": {0: 99_999}})
    running = asyncio.create_task(executor.run(ahead))
    await until(lambda: len(cluster.jobs()) == 1)
    await cluster.runs_for_real()  # by the exit code that the podFailurePolicy knows
    with pytest.raises(RunFailed, match=r"ships-arrived.*99999"):
        await running
