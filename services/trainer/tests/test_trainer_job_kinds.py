"""TrainJob, RayJob and Workflow: a run asks for one as it asks for a Job, once, and hears how it ended from the words of each.

Their controllers do not run here: the tests write the status that they would.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kubernetes import client
from ruamel.yaml import YAML

from millstream.errors import BadSetup
from millstream_trainer.adapters.job_kinds import RAY_JOB, TRAIN_JOB, WORKFLOW, Kind, at
from millstream_trainer.adapters.job_template import KEPT, JobTemplate, as_argument
from millstream_trainer.adapters.kubernetes_api import KubernetesApi
from millstream_trainer.adapters.kubernetes_jobs import KubernetesJobs
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.training_process import Said
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

from .cluster import Cluster, new_cluster
from .job_manifest import SPEC, ray_job, train_job, workflow
from .trainer_kit import passes

Until = Callable[..., Any]
Object = dict[str, Any]

DONE = Said(result=passes(SPEC))
OF_TRAIN = {"type": "Failed", "status": "True", "lastTransitionTime": "2013-03-03T00:00:00Z"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What differs between the kinds, as their controllers and a person see it."""

    kind: Kind
    manifest: Callable[[str, str], Object]
    told: Callable[[Object], list[str]]
    """Name and spec in an object that was made."""
    done: Object
    failed: Object
    why: str
    status: bool = True
    """Whether the status is a resource of its own."""


CASES = [
    Case(
        kind=TRAIN_JOB,
        manifest=lambda namespace, packages: train_job(namespace),
        told=lambda made: made["spec"]["trainer"]["args"],
        done={"conditions": [OF_TRAIN | {"type": "Complete", "reason": "JobsCompleted", "message": "all are"}]},
        failed={"conditions": [OF_TRAIN | {"reason": "DeadlineExceeded", "message": "too long"}]},
        why="passed its deadline before it began",
    ),
    Case(
        kind=RAY_JOB,
        manifest=ray_job,
        told=lambda made: shlex.split(made["spec"]["entrypoint"])[-2:],
        done={"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"},
        failed={"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "entrypoint ended with 137"},
        why="AppFailed: entrypoint ended with 137",
    ),
    Case(
        kind=WORKFLOW,
        manifest=lambda namespace, packages: workflow(namespace),
        told=lambda made: [one["value"] for one in made["spec"]["arguments"]["parameters"]],
        done={"phase": "Succeeded"},
        failed={"phase": "Failed", "message": "OOMKilled (exit code 137)"},
        why=r"Failed: OOMKilled \(exit code 137\)",
        status=False,
    ),
]


@pytest.fixture(params=CASES, ids=[case.kind.kind for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with new_cluster(tmp_path) as made:
        yield made


class Controller:
    """What the kind's controller would do to the one object of a test."""

    def __init__(self, case: Case, cluster: Cluster) -> None:
        self._case, self._cluster = case, cluster
        self._api = client.CustomObjectsApi(cluster._client)
        group, _, version = case.kind.api.partition("/")
        self._where = (group, version, cluster.namespace, case.kind.resource)

    def objects(self) -> list[Object]:
        found: list[Object] = self._api.list_namespaced_custom_object(*self._where)["items"]
        return found

    def one(self) -> Object:
        (found,) = self.objects()
        return found

    def says(self, status: Object) -> None:
        patch = self._api.patch_namespaced_custom_object
        if self._case.status:
            patch = self._api.patch_namespaced_custom_object_status
        patch(*self._where, self.one()["metadata"]["name"], {"status": status})


class Dispatchers:
    """Makes executors as dispatchers have them, all of one cluster, one folder and one template."""

    def __init__(self, case: Case, cluster: Cluster, tmp_path: Path) -> None:
        self.packages = str(tmp_path / "packages")
        self.manifest = case.manifest(cluster.namespace, self.packages)
        self._case, self._cluster = case, cluster

    @asynccontextmanager
    async def one(self) -> AsyncIterator[KubernetesJobs]:
        made = KubernetesJobs(
            template=JobTemplate(self.manifest),
            api=KubernetesApi(self._cluster.namespace, self._cluster.kubeconfig, self._case.kind),
            notes=RunNotes(self.packages),
            deadline=100.4,
            patience=60,
            untracked=lambda loop: None,
            look=1,
            note_patience=0.1,
        )
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
def dispatchers(case: Case, cluster: Cluster, tmp_path: Path) -> Dispatchers:
    return Dispatchers(case, cluster, tmp_path)


@pytest.fixture
def controller(case: Case, cluster: Cluster) -> Controller:
    return Controller(case, cluster)


@pytest.fixture
def notes(tmp_path: Path) -> RunNotes:
    return RunNotes(str(tmp_path / "packages"))


async def test_racing_dispatchers_start_one_and_a_successor_takes_it_up(
    case: Case, dispatchers: Dispatchers, controller: Controller, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as first, dispatchers.one() as second:
        running = [asyncio.create_task(one.run(SPEC)) for one in (first, second, first)]
        await until(lambda: len(controller.objects()) == 1)
        running[0].cancel()
        made = controller.one()
        async with dispatchers.one() as third:
            running.append(asyncio.create_task(third.run(SPEC)))
            notes.say(made["metadata"]["name"], DONE)
            controller.says(case.done)
            assert await asyncio.gather(*running[1:]) == [DONE.result] * 3
    assert len(controller.objects()) == 1
    name, told = case.told(made)
    assert (name, msgspec.json.decode(told, type=RunSpec)) == (made["metadata"]["name"], SPEC)
    assert re.fullmatch(r"mill-trainer-[0-9a-f]{16}", name)
    assert made["metadata"]["labels"] == {"millstream/loop": "tides", "millstream/run": "r1"}
    assert made["spec"]["activeDeadlineSeconds"] == 101


async def test_its_controllers_words_are_the_reason(
    case: Case, dispatchers: Dispatchers, controller: Controller, until: Until
) -> None:
    async with dispatchers.one() as executor:
        running = asyncio.create_task(executor.run(SPEC))
        await until(lambda: len(controller.objects()) == 1)
        controller.says(case.failed)
        with pytest.raises(RunFailed, match=case.why):
            await running


async def test_a_run_that_says_why_it_failed_is_believed(
    case: Case, dispatchers: Dispatchers, controller: Controller, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as executor:
        running = asyncio.create_task(executor.run(SPEC))
        await until(lambda: len(controller.objects()) == 1)
        notes.say(controller.one()["metadata"]["name"], Said(failed="the lake is behind"))
        controller.says(case.failed)
        with pytest.raises(RunFailed, match=r"^the lake is behind$"):
            await running


async def test_ended_ones_that_nobody_else_removes_go_when_the_next_run_begins(
    case: Case, dispatchers: Dispatchers, controller: Controller, notes: RunNotes, until: Until
) -> None:
    dispatchers.manifest["metadata"]["annotations"] = {KEPT: "0"}
    async with dispatchers.one() as executor:
        running = asyncio.create_task(executor.run(SPEC))
        await until(lambda: len(controller.objects()) == 1)
        old = controller.one()["metadata"]["name"]
        notes.say(old, DONE)
        controller.says(case.done)
        await running
        running = asyncio.create_task(executor.run(msgspec.structs.replace(SPEC, run="r2")))
        await until(lambda: any(one["metadata"]["name"] != old for one in controller.objects()))
        left = {one["metadata"]["name"] == old for one in controller.objects()}
        assert left == ({False} if case.kind.stays else {True, False})
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_may_not_is_told_the_rule_of_the_kind(case: Case, dispatchers: Dispatchers, cluster: Cluster) -> None:
    if cluster.server is None:
        pytest.skip("a real API server refuses its administrator nothing")
    cluster.server.refused.add(("create", case.kind.resource))
    async with dispatchers.one() as executor:
        with pytest.raises(RunFailed) as refused:
            await executor.run(SPEC)
    rule = f'apiGroups: ["{case.kind.group}"], resources: ["{case.kind.resource}"], verbs: ["create"]'
    assert rule in str(refused.value)


def test_a_template_of_the_kind_is_taken(case: Case, dispatchers: Dispatchers, tmp_path: Path) -> None:
    YAML().dump(dispatchers.manifest, tmp_path / "job.yaml")
    assert JobTemplate.read(tmp_path / "job.yaml", dispatchers.packages).kind is case.kind


@pytest.mark.parametrize(
    ("kind", "path", "value", "says"),
    [
        (TRAIN_JOB, "spec.runtimeRef.name", None, "spec.runtimeRef.name is missing"),
        (TRAIN_JOB, "spec.trainer", {"image": "x"}, "spec.trainer is the run's to write"),
        (TRAIN_JOB, "metadata.name", "m" * 31, "is no name of 30 lowercase letters"),
        (RAY_JOB, "spec.submissionMode", "K8sJobMode", "spec.submissionMode is K8sJobMode, and has to be HTTPMode"),
        (RAY_JOB, "spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy", "Always", "has to be Never"),
        (
            RAY_JOB,
            "spec.rayClusterSpec.headGroupSpec.template.spec.containers",
            [],
            "template.spec.containers is missing",
        ),
        (WORKFLOW, "spec.workflowTemplateRef", None, "spec.workflowTemplateRef.name is missing"),
        (WORKFLOW, "spec.arguments", {}, "spec.arguments is the run's to write"),
    ],
)
def test_a_template_that_misses_something_is_refused_with_its_key(
    kind: Kind, path: str, value: Any, says: str, tmp_path: Path
) -> None:
    (of_kind,) = (one for one in CASES if one.kind is kind)
    template = of_kind.manifest("training", "/shared/packages")
    *before, last = path.split(".")
    at(template, before)[last] = value
    YAML().dump(template, tmp_path / "job.yaml")
    with pytest.raises(BadSetup, match=re.escape(says)):
        JobTemplate.read(tmp_path / "job.yaml", "/shared/packages")


@pytest.mark.parametrize(
    "request_id", ["$(AWS_SECRET_ACCESS_KEY)", "{{workflow.uid}}", "{{{x}}}", 'it\'s `id` "$HOME" \\ ü']
)
def test_nobody_on_the_way_finds_a_variable_in_what_a_run_is_told(request_id: str) -> None:
    spec = msgspec.structs.replace(SPEC, request=request_id)
    told = as_argument(spec)
    assert "$" not in told
    assert "{{" not in told
    assert msgspec.json.decode(told, type=RunSpec) == spec
    made = JobTemplate(ray_job("training", "/p")).job(spec, 10)
    assert shlex.split(made["spec"]["entrypoint"])[-1] == told
