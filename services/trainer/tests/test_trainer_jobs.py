"""Runs as Jobs of Kubernetes: started once whoever asks, taken up by their names, and every end has a reason."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Outcome, TrainingFinished, TrainingStarted
from millstream_trainer.adapters.job_template import JobTemplate
from millstream_trainer.adapters.kubernetes_api import KubernetesApi, hang_up
from millstream_trainer.adapters.kubernetes_jobs import KubernetesJobs
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.training_process import Said
from millstream_trainer.errors import RunFailed
from millstream_trainer.handlers import MAX_ATTEMPTS

from .cluster import Cluster, new_cluster
from .job_manifest import DISPATCHER, SPEC, manifest
from .trainer_kit import Office, passes

Until = Callable[..., Any]

GPU = "no node takes its pod: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
DONE = Said(result=passes(SPEC))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with new_cluster(tmp_path) as made:
        yield made


@pytest.fixture
def notes(tmp_path: Path) -> RunNotes:
    return RunNotes(str(tmp_path / "packages"))


class Dispatchers:
    """Makes executors as dispatchers have them, all of one cluster and one folder."""

    def __init__(self, cluster: Cluster, tmp_path: Path) -> None:
        self.cluster, self.packages = cluster, str(tmp_path / "packages")
        self.untracked: list[str] = []
        self.phases: list[str | None] = []

    @asynccontextmanager
    async def one(self, **more: Any) -> AsyncIterator[KubernetesJobs]:
        made = KubernetesJobs(
            template=JobTemplate(manifest(self.cluster.namespace, self.packages)),
            api=KubernetesApi(self.cluster.namespace, self.cluster.kubeconfig),
            notes=RunNotes(self.packages),
            **{"deadline": 100, "patience": 60, "look": 1, "note_patience": 0.1} | more,
            untracked=self.untracked.append,
            phase=lambda loop, phase: self.phases.append(phase),
        )
        try:
            yield made
        finally:
            await made.close()

    async def begun(self, executor: KubernetesJobs, until: Until) -> asyncio.Task[Any]:
        """A run whose Job is there."""
        running = asyncio.create_task(executor.run(SPEC))
        await until(lambda: running.done() or len(self.cluster.jobs()) == 1)
        return running


@pytest.fixture
def dispatchers(cluster: Cluster, tmp_path: Path) -> Dispatchers:
    return Dispatchers(cluster, tmp_path)


@pytest.fixture
def ours(cluster: Cluster) -> Any:
    """The server of the tests, for what nobody can have a real one do."""
    if cluster.server is None:
        pytest.skip("a real API server is neither away nor refuses its administrator when a test would like it to")
    return cluster.server


async def test_a_run_is_a_job_of_its_name_with_its_spec_and_a_deadline(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as executor:
        running = await dispatchers.begun(executor, until)
        job = cluster.job()
        cluster.begins()
        notes.say(job.metadata.name, Said(phase="fit"))
        await until(lambda: "fit" in dispatchers.phases)
        notes.say(job.metadata.name, DONE)
        cluster.completes()
        assert await running == DONE.result
    assert job.metadata.name.startswith("mill-trainer-")
    assert {"millstream/loop": "tides", "millstream/run": "r1"}.items() <= job.metadata.labels.items()
    assert {"millstream/loop": "tides", "millstream/run": "r1"}.items() <= job.spec.template.metadata.labels.items()
    assert (job.spec.active_deadline_seconds, job.spec.ttl_seconds_after_finished) == (100, 3600)
    assert job.spec.template.spec.containers[0].args[0] == job.metadata.name
    assert dispatchers.phases[-1] is None


async def test_two_dispatchers_that_race_start_one_job_and_hear_one_result(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as first, dispatchers.one() as second:
        running = [asyncio.create_task(one.run(SPEC)) for one in (first, second) for _ in range(3)]
        await until(lambda: len(cluster.jobs()) == 1)
        if cluster.server is not None:
            await until(lambda: cluster.server.requests.count(("create", "jobs")) == 6)
        notes.say(cluster.job().metadata.name, DONE)
        cluster.completes()
        assert await asyncio.gather(*running) == [DONE.result] * 6
        assert len(cluster.jobs()) == 1


async def test_a_dispatcher_that_is_killed_before_it_tells_anybody_leaves_one_job(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, until: Until
) -> None:
    """kill -9, between the Job and what is published of it."""
    killed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DISPATCHER, str(cluster.kubeconfig), dispatchers.packages),
        stdin=asyncio.subprocess.PIPE,
    )
    assert killed.stdin is not None
    killed.stdin.write(msgspec.json.encode([manifest(cluster.namespace, dispatchers.packages), SPEC]))
    killed.stdin.close()
    try:
        await until(lambda: killed.returncode is not None or len(cluster.jobs()) == 1, seconds=60)
    finally:
        with suppress(ProcessLookupError):
            killed.kill()
        await killed.wait()
    made = cluster.job().metadata
    async with dispatchers.one() as first, dispatchers.one() as second:
        running = [asyncio.create_task(one.run(SPEC)) for one in (first, second)]
        notes.say(made.name, DONE)
        cluster.completes()
        assert await asyncio.gather(*running) == [DONE.result] * 2
    assert [one.metadata.uid for one in cluster.jobs()] == [made.uid]


async def test_a_dispatcher_that_ended_after_it_made_the_job_leaves_it_to_its_successor(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as first:
        running = await dispatchers.begun(first, until)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    made = cluster.job().metadata
    async with dispatchers.one() as second:
        running = asyncio.create_task(second.run(SPEC))
        notes.say(made.name, DONE)
        cluster.completes()
        assert await running == DONE.result
    assert cluster.job().metadata.uid == made.uid


async def test_a_trainer_killed_between_the_job_and_its_word_is_followed_by_one_that_says_how_it_ended(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, tides: Any, until: Until
) -> None:
    async with dispatchers.one() as executor:
        office = Office(tides.rules, runs_in=executor)
        async with office.at_work():
            await office.trainer.hear(tides.matured(10))
            await until(lambda: len(cluster.jobs()) == 1)
    made = cluster.job().metadata
    run = made.labels["millstream/run"]
    model = msgspec.structs.replace(passes(SPEC).model, run=run, uri=f"memory:{run}")
    notes.say(made.name, Said(result=msgspec.structs.replace(passes(SPEC), model=model)))
    cluster.completes()
    async with dispatchers.one() as executor:
        successor = office.restarted(runs_in=executor)
        await successor.trainer.resume()
        async with successor.at_work():
            await until(successor.ended())
    (finished,) = successor.announcer.of(TrainingFinished)
    assert (finished.run, finished.attempt, finished.outcome) == (run, 1, Outcome.PROMOTED)
    assert cluster.job().metadata.uid == made.uid


async def test_a_run_that_had_its_last_word_is_not_begun_again_when_its_job_is_gone(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes
) -> None:
    async with dispatchers.one() as executor:
        name = JobTemplate(manifest(cluster.namespace, dispatchers.packages)).name(SPEC)
        notes.say(name, Said(result=DONE.result, untracked=True))
        assert await executor.run(SPEC) == DONE.result
    assert (cluster.jobs(), dispatchers.untracked) == ([], ["tides"])


async def test_a_run_that_says_why_it_failed_is_believed(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as executor:
        running = await dispatchers.begun(executor, until)
        cluster.begins()
        notes.say(cluster.job().metadata.name, Said(failed="the lake is behind"))
        cluster.fails("PodFailurePolicy", "Container training failed with exit code 3", 3)
        with pytest.raises(RunFailed, match=r"^the lake is behind$"):
            await running


async def test_a_run_that_memory_ended_says_so(dispatchers: Dispatchers, cluster: Cluster, until: Until) -> None:
    async with dispatchers.one() as executor:
        running = await dispatchers.begun(executor, until)
        cluster.begins()
        cluster.fails("BackoffLimitExceeded", "Job has reached the specified backoff limit", 137, "OOMKilled")
        with pytest.raises(RunFailed, match=r"backoff limit; its container ended with code 137 \(OOMKilled\)"):
            await running


async def test_a_run_that_passes_its_deadline_says_so(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as executor:
        running = await dispatchers.begun(executor, until)
        cluster.begins()
        notes.say(cluster.job().metadata.name, Said(phase="choice"))
        await until(lambda: "choice" in dispatchers.phases)
        cluster.fails("DeadlineExceeded", "Job was active longer than specified deadline")
        with pytest.raises(RunFailed, match="passed its deadline and was ended"):
            await running


async def test_a_job_that_a_person_deletes_is_a_failed_run(
    dispatchers: Dispatchers, cluster: Cluster, notes: RunNotes, until: Until
) -> None:
    async with dispatchers.one() as executor:
        running = await dispatchers.begun(executor, until)
        cluster.begins()
        notes.say(cluster.job().metadata.name, Said(phase="fit"))
        cluster.deleted()
        with pytest.raises(RunFailed, match=r"was deleted while its run was under way$"):
            await running


@pytest.mark.parametrize("why", ["no node", "no image"])
async def test_a_job_that_never_begins_is_deleted_and_says_what_it_waited_for(
    dispatchers: Dispatchers, cluster: Cluster, until: Until, why: str
) -> None:
    async with dispatchers.one(patience=8) as executor:
        running = await dispatchers.begun(executor, until)
        if why == "no node":
            cluster.pends("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
            said = r"no node takes its pod: 0/3 nodes are available: 3 Insufficient nvidia\.com/gpu\."
        else:
            cluster.cannot_pull('Back-off pulling image "registry.example/trainer:7"')
            said = 'its container cannot start: ImagePullBackOff: Back-off pulling image "registry.example/trainer:7"'
        with pytest.raises(RunFailed, match=f"did not begin within 8 s and was deleted: {said}"):
            await running
        assert cluster.jobs() == []


async def test_what_a_job_waited_for_is_not_forgotten_when_its_deadline_takes_its_pod(
    dispatchers: Dispatchers, cluster: Cluster, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    async with dispatchers.one() as executor:
        running = await dispatchers.begun(executor, until)
        cluster.pends("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
        await until(lambda: GPU in caplog.text)
        cluster.loses_its_pod()
        cluster.fails("DeadlineExceeded", "Job was active longer than specified deadline")
        with pytest.raises(RunFailed, match=f"passed its deadline before it began: {GPU}"):
            await running


async def test_a_job_that_completes_without_a_word_asks_for_one_folder(
    dispatchers: Dispatchers, cluster: Cluster, until: Until
) -> None:
    async with dispatchers.one() as executor:
        running = await dispatchers.begun(executor, until)
        cluster.begins()
        cluster.completes()
        with pytest.raises(
            RunFailed, match=r"left no word in .*packages/\.runs: trainer and Jobs have to mount one folder"
        ):
            await running


async def test_an_api_server_that_is_away_is_waited_for_and_there_is_one_job(
    dispatchers: Dispatchers, cluster: Cluster, ours: Any, notes: RunNotes, until: Until
) -> None:
    ours.away = True
    async with dispatchers.one() as executor:
        running = asyncio.create_task(executor.run(SPEC))
        await until(lambda: ours.requests.count(("create", "jobs")) >= 2)
        ours.away = False
        await until(lambda: len(ours.objects) == 1)
        ours.away = True
        with ours.changed:
            ours.changed.notify_all()  # the watch ends as well
        asked = len(ours.requests)
        await until(lambda: len(ours.requests) > asked + 2)
        notes.say(next(name for _, name in ours.objects), DONE)
        ours.away = False
        ours.forget_history()
        cluster.completes()
        assert await running == DONE.result
        assert len(cluster.jobs()) == 1


@pytest.mark.parametrize(
    ("verb", "resource", "rule"),
    [
        ("create", "jobs", 'apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]'),
        ("get", "jobs", 'apiGroups: ["batch"], resources: ["jobs"], verbs: ["get"]'),
        ("watch", "jobs", 'apiGroups: ["batch"], resources: ["jobs"], verbs: ["watch"]'),
        ("list", "pods", 'apiGroups: [""], resources: ["pods"], verbs: ["list"]'),
    ],
)
async def test_who_may_not_is_told_the_rule_that_is_missing(
    dispatchers: Dispatchers, ours: Any, verb: str, resource: str, rule: str
) -> None:
    ours.refused.add((verb, resource))
    async with dispatchers.one() as executor:
        with pytest.raises(RunFailed) as refused:
            await executor.run(SPEC)
    assert rule in str(refused.value)
    assert "in namespace training" in str(refused.value)


def test_in_a_cluster_the_pods_own_token_is_shown(ours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi
    from kubernetes.config import incluster_config

    host, port = ours.url.removeprefix("http://").split(":")
    (tmp_path / "token").write_text("the-token")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", certifi.where())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    loads = incluster_config.InClusterConfigLoader._set_config

    def without_tls(loader: Any, configuration: Any) -> None:
        loads(loader, configuration)
        configuration.host = ours.url

    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "_set_config", without_tls)
    api = KubernetesApi("training", None)
    try:
        assert api.job("nothing") is None
    finally:
        hang_up(api._client)


async def test_a_namespace_that_is_not_there_is_named(dispatchers: Dispatchers, cluster: Cluster) -> None:
    cluster.namespace = "nowhere"
    async with dispatchers.one() as executor:
        with pytest.raises(RunFailed, match='namespaces "nowhere" not found; make the namespace'):
            await executor.run(SPEC)


async def test_a_trainer_that_restarts_often_takes_its_run_up_as_the_same_attempt(
    tides: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    from millstream_trainer.adapters.memory import MemoryExecutor

    monkeypatch.setattr(MemoryExecutor, "outlives", True)
    office = Office(tides.rules)
    office.executor.gate.clear()
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(lambda: office.executor.under_way == 1)
    said = list(office.announcer.said)
    for _ in range(MAX_ATTEMPTS + 1):
        office = office.restarted(said=said)
        office.executor.gate.clear()
        await office.trainer.resume()
        async with office.at_work():
            await until(lambda: office.executor.under_way == 1)  # noqa: B023
        said += office.announcer.said
    office = office.restarted(said=said)
    await office.trainer.resume()
    async with office.at_work():
        await until(office.ended())
    assert {started.id for started in said if isinstance(started, TrainingStarted)} == {
        office.announcer.of(TrainingStarted)[0].id
    }
    (finished,) = office.announcer.of(TrainingFinished)
    assert (finished.attempt, finished.outcome) == (1, Outcome.PROMOTED)
