"""KEDA starts pods for the runs that the trainer offers (training.executor=keda): a real KEDA, a real Kafka, our ScaledJob."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.waiting import wait_until

from .charts import documents, of_kind, template
from .keda import settle
from .kubectl import Helm, Kubectl
from .scaled_jobs import LOOK, Jobs, Offered, offered, partition_of
from .test_lag import PARTITIONS, group
from .test_releases import CLAIM

pytestmark = [pytest.mark.usefixtures("keda"), pytest.mark.timeout(400)]

NAME = "trainer-training"
RUNS_ON = {"jobTargetRef": {"template": {"metadata": {"annotations": {"millstream/run-for": "900s"}}}}}
"""A pod that shall end does so here after a second; these wait to be told."""


@pytest.fixture(scope="module")
def runs_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One of their own: every run has the same topic, and KEDA counts whatever is on it."""
    with EmbeddedKafka(tmp_path_factory.mktemp("runs") / "kafka").running() as server:
        yield server


@pytest.fixture
async def runs(runs_kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[Offered]:
    async with offered(runs_kafka.bootstrap, tmp_path / "packages") as found:
        await found.looks()
        yield found


@pytest.fixture
def jobs(releases: Helm, kubectl: Kubectl, runs_kafka: EmbeddedKafka, runs: Offered) -> Jobs:
    """Of the chart's ScaledJob, as the chart installs it."""
    kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
    releases.install("trainer", "keda-values.yaml", *sets(kubectl, runs_kafka.bootstrap))
    kubectl("patch", "scaledjob", NAME, "--type=merge", "-p", json.dumps({"spec": RUNS_ON}))
    settle(kubectl, "scaledjob", NAME)
    return Jobs(kubectl, NAME)


def sets(kubectl: Kubectl, bootstrap: str) -> list[str]:
    said = {"kafka.bootstrap": bootstrap, "training.namespace": kubectl.namespace, "training.pollingInterval": LOOK}
    return [part for key, value in said.items() for part in ("--set", f"{key}={value}")]


def like(first: str, alike: bool) -> str:
    """Another run, which will be on the same partition as the first, or on another."""
    return next(
        run for n in count() if (partition_of(run := f"run-{n}") == partition_of(first)) is alike and run != first
    )


async def test_a_run_that_waits_gets_a_pod_and_one_that_has_its_own_gets_no_second(runs: Offered, jobs: Jobs) -> None:
    first, second = "run-first", like("run-first", alike=False)
    await runs.offers(first)
    wait_until(lambda: jobs.run(1), within=60, what="a pod for it", every=0.5)
    await jobs.stay(1)

    await runs.offers(second)  # while the first goes on
    wait_until(lambda: jobs.run(2), within=60, what="a pod of its own", every=0.5)
    await jobs.stay(2)

    await runs.ends(first)
    jobs.end(sorted(jobs.all())[0])
    wait_until(lambda: jobs.run(1), within=60, what="its Job to end", every=0.5)
    await jobs.stay(2)

    await runs.ends(second)
    jobs.end(*jobs.under_way())
    wait_until(lambda: jobs.run(0), within=60, what="the other's too", every=0.5)
    await jobs.stay(2)


async def test_behind_a_run_that_goes_on_what_ended_is_counted_and_brings_pods_that_find_nothing(
    runs: Offered, jobs: Jobs
) -> None:
    """Offsets have no holes. docs/training-on-kubernetes.md says so."""
    first, second = "run-long", like("run-long", alike=True)
    await runs.offers(first)
    wait_until(lambda: jobs.run(1), within=60, what="a pod", every=0.5)
    (long,) = jobs.all()
    await runs.offers(second)
    wait_until(lambda: jobs.run(2), within=60, what="the other's", every=0.5)

    await runs.ends(second)
    jobs.end(*(jobs.all() - {long}))
    wait_until(lambda: len(jobs.all()) == 3, within=60, what="a pod that finds nothing", every=0.5)
    wait_until(lambda: jobs.run(2), within=60, what="it to look", every=0.5)
    await jobs.stay(3)

    await runs.ends(first)
    for job in jobs.under_way():
        jobs.end(job)
    wait_until(lambda: jobs.run(0), within=60, what="all to end", every=0.5)
    await jobs.stay(3)


@pytest.fixture
def spec(helm: Path, kubectl: Kubectl, kafka: EmbeddedKafka) -> dict[str, Any]:
    """The chart's, with room for twelve Jobs, and pods that need nothing of the chart."""
    text = template(helm, "trainer", "keda-values.yaml", f"training.pollingInterval={LOOK}", "training.maxRuns=12")
    ((one),) = of_kind(documents(text), "ScaledJob")
    made: dict[str, Any] = copy.deepcopy(one["spec"])
    made["triggers"][0]["metadata"]["bootstrapServers"] = kafka.bootstrap
    made["jobTargetRef"]["template"]["metadata"] |= RUNS_ON["jobTargetRef"]["template"]["metadata"]
    pod = made["jobTargetRef"]["template"]["spec"]
    pod["serviceAccountName"] = "default"
    pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "shared"]
    (container,) = pod["containers"]
    container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] != "shared"]
    return made


def scaled(kubectl: Kubectl, name: str, spec: dict[str, Any]) -> None:
    made = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": {"name": name}, "spec": spec}
    kubectl("apply", "-f", "-", given=json.dumps(made))


async def test_records_that_are_gone_count_where_the_group_has_no_offset(
    kubectl: Kubectl, kafka: EmbeddedKafka, spec: dict[str, Any], unique_name: Callable[[str], str]
) -> None:
    """As a week after the last run. What a pod of ours does before it goes ends it: it commits for every partition."""
    told = spec["triggers"][0]["metadata"]
    told |= {"topic": unique_name("runs"), "consumerGroup": unique_name("training-jobs")}
    async with group(kafka, told["consumerGroup"], told["topic"]) as consumers:
        await consumers.writes(1)
        await forget(kafka, told["topic"])
        scaled(kubectl, "ours", spec)
        jobs = Jobs(kubectl, "ours")
        wait_until(lambda: len(jobs.all()) >= PARTITIONS, within=60, what="pods for runs that nobody offers", every=0.5)
        settle(kubectl, "scaledjob", "ours")

        await consumers.caught_up()
        made = len(jobs.all())
        for job in jobs.under_way():
            jobs.end(job)
        wait_until(lambda: jobs.run(0), within=60, what="them to end", every=0.5)
        await jobs.stay(made)


async def forget(kafka: EmbeddedKafka, topic: str) -> None:
    """All that is on it, as Kafka does when it is too old."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        parts = [TopicPartition(topic, part) for part in range(PARTITIONS)]
        await admin.delete_records(dict.fromkeys(parts, RecordsToDelete(-1)))
    finally:
        await admin.close()


async def test_accurate_starts_jobs_for_runs_that_have_one(
    kubectl: Kubectl, kafka: EmbeddedKafka, spec: dict[str, Any], unique_name: Callable[[str], str]
) -> None:
    told = spec["triggers"][0]["metadata"]
    told |= {"topic": unique_name("runs"), "consumerGroup": unique_name("training-jobs")}
    async with group(kafka, told["consumerGroup"], told["topic"]) as consumers:
        await consumers.caught_up()
        scaled(kubectl, "naive", spec | {"scalingStrategy": {"strategy": "accurate"}})
        scaled(kubectl, "ours", spec)
        settle(kubectl, "scaledjob", "naive", "ours")
        await consumers.writes(1)  # one for each partition, and nobody commits before they end
        naive, ours = Jobs(kubectl, "naive"), Jobs(kubectl, "ours")
        wait_until(lambda: len(naive.all()) > PARTITIONS, within=60, what="a Job too many", every=0.5)
        wait_until(lambda: ours.run(PARTITIONS), within=60, what="a Job for each", every=0.5)
        await ours.stay(PARTITIONS)


async def test_an_edit_ends_the_jobs_that_run_unless_the_rollout_is_gradual(
    kubectl: Kubectl, kafka: EmbeddedKafka, spec: dict[str, Any], unique_name: Callable[[str], str]
) -> None:
    told = spec["triggers"][0]["metadata"]
    told |= {"topic": unique_name("runs"), "consumerGroup": unique_name("training-jobs")}
    naive = {key: value for key, value in spec.items() if key != "rollout"}
    async with group(kafka, told["consumerGroup"], told["topic"]) as consumers:
        await consumers.caught_up()
        scaled(kubectl, "naive", naive)
        scaled(kubectl, "ours", spec)
        settle(kubectl, "scaledjob", "naive", "ours")
        await consumers.writes(1)
        before = {}
        for name in ("naive", "ours"):
            found = Jobs(kubectl, name)
            wait_until(lambda found=found: found.run(PARTITIONS), within=60, what=f"Jobs of {name}", every=0.5)
            before[name] = found.all()

        for name, one in (("naive", naive), ("ours", spec)):
            edited = copy.deepcopy(one)
            edited["jobTargetRef"]["activeDeadlineSeconds"] += 1
            scaled(kubectl, name, edited)

        wait_until(
            lambda: not Jobs(kubectl, "naive").all() & before["naive"], within=60, what="KEDA to end them", every=0.5
        )
        await asyncio.sleep(3 * LOOK)
        assert Jobs(kubectl, "ours").under_way() == before["ours"]
