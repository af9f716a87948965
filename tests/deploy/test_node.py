"""On a real node: the umbrella chart with our own images, and what no control plane without one can show.

One story on one installation, told in the order of the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from millstream.contracts.times import HOUR, from_rfc3339
from millstream.testing.errors import ServerDidNotStart
from millstream.testing.waiting import wait_until
from millstream_cli.loop_summary import Places
from millstream_cli.recording import load_recording
from millstream_cli.replay import Addresses
from millstream_cli.running import run_replay
from millstream_cli.summary import broken_promises, summarise
from millstream_cli.ticks import Ticks

from .charts import SERVICES
from .engine import Docker
from .images import DOCKERFILES, Image, name_of
from .kubectl import Helm, Said
from .load import NOW, Load
from .must import lacks
from .node import RealNode
from .node_mill import RELEASE, Mill, mill
from .node_network import MACHINE
from .node_servers import Servers, servers
from .node_tools import lacking, missing
from .tools import NoTool

pytestmark = pytest.mark.timeout(3600)

UNTIL = NOW
"""Ten and a half days: a first model, a second one, and its trial."""
NAMESPACE = "mill"
NEXT = "next"
"""Another tag of the same images: what a release brings that changes no code."""


@pytest.fixture(scope="module")
def node(
    docker: Docker, images: Callable[[str], Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealNode]:
    """Ready, with our images."""
    if packages := lacking():
        lacks(f"a node needs packages of the distribution: apt-get install {' '.join(packages)}")
    if programs := missing():
        lacks(f"no {programs[0].name} in {programs[0].parent}: python -m tests.deploy.node_tools says why")
    made = RealNode(tmp_path_factory.mktemp("node"), docker)
    try:
        made.start()
        made.load([images(which).name for which in DOCKERFILES])
        yield made
    except NoTool as error:
        lacks(str(error))
    except ServerDidNotStart as error:
        pytest.fail(str(error))
    finally:
        made.stop()


@pytest.fixture(scope="module")
def around(node: RealNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("servers")) as found:
        yield found


@pytest.fixture(scope="module")
def installed(node: RealNode, helm: Path, around: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """The release, in a namespace where Pod Security refuses what is not `restricted`."""
    kubectl = node.namespace(NAMESPACE)
    releases = Helm(program=helm, kubeconfig=node.kubeconfig, namespace=NAMESPACE)
    with mill(tmp_path_factory.mktemp("mill"), kubectl, releases, around) as found:
        yield found


def test_every_pod_is_ready_as_nobody_on_a_root_that_is_read_only(node: RealNode, installed: Mill) -> None:
    for service in SERVICES:
        for pod in installed.pods(service):
            name = pod["metadata"]["name"]
            run = ("exec", name, "--", "/opt/venv/bin/python", "-c")
            who = (
                "import os; print(os.getuid(), *[l.split()[1] for l in open('/proc/self/status') if l[:6] == 'CapEff'])"
            )
            assert installed.kubectl(*run, who).split() == ["10001", "0" * 16]
            assert "Read-only file system" in installed.kubectl.refuses(*run, "open('/opt/venv/here', 'w')")


def test_the_charts_own_test_passes(node: RealNode, installed: Mill) -> None:
    installed.helm("test", RELEASE, "--timeout", "120s", within=150)


def test_a_replay_loses_nothing_and_trains_in_jobs(node: RealNode, installed: Mill) -> None:
    before = installed.restarts()

    figures = asyncio.run(replay(installed))

    assert broken_promises(figures) == []
    assert figures["events_in_topics"] == figures["events_in_lake"] == figures["events_sent"]
    assert figures["predictions_effective"] > 4000
    assert figures["skew_max"] <= 1e-9
    assert figures["promotions"] >= 1
    jobs = installed.kubectl.get("jobs", "-l", "app.kubernetes.io/name=training")["items"]
    assert len([job for job in jobs if job["status"].get("succeeded")]) == figures["retrains"]
    assert installed.restarts() == before


async def replay(made: Mill) -> dict[str, Any]:
    """The figures of `make demo`, of this replay."""
    recording = load_recording(made.project)
    ticks = Ticks(recording.events, questions={"flights-scheduled"}, tick=HOUR, until=from_rfc3339(UNTIL))
    kafka = made.servers.kafka.bootstrap
    replayed = await run_replay(
        project=made.project,
        ticks=ticks,
        addresses=Addresses(kafka=kafka, ingest=made.address("ingest"), serving=made.address("serving")),
        console=Console(file=StringIO(), width=160),
        states=dict,
    )
    places = Places(kafka=kafka, lake=str(made.lake), packages=str(made.packages), registry=made.folder / "registry.db")
    return await summarise(made.project, recording, ticks, replayed.story, places)


@pytest.mark.parametrize("service", SERVICES)
def test_an_upgrade_under_load_fails_no_request(service: str, node: RealNode, installed: Mill) -> None:
    node.tag(name_of(service), NEXT)
    old = {pod["metadata"]["name"] for pod in installed.pods(service)}
    many = service in ("ingest", "features", "serving")
    before = installed.restarts()

    with Load(installed.address(service), service) as load:
        wait_until(lambda: load.answered > 10, within=30, what="the first answers")
        installed.upgrade(f"{service}.image.tag={NEXT}")
        installed.wait_ready(service)

    new = installed.pods(service)
    assert old.isdisjoint(pod["metadata"]["name"] for pod in new)
    assert all(pod["spec"]["containers"][0]["image"].endswith(f":{NEXT}") for pod in new)
    others = {name: count for name, count in before.items() if name not in old}
    assert installed.restarts() == others | {pod["metadata"]["name"]: 0 for pod in new}
    if many:  # of the others there is one at a time, by design
        assert load.failed == [], f"{len(load.failed)} of {load.answered + len(load.failed)}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_container_is_started_again(service: str, node: RealNode, installed: Mill) -> None:
    (pod, *_) = installed.pods(service)
    name = pod["metadata"]["name"]
    before = installed.restarts()[name]

    node.kill(pod)

    wait_until(lambda: installed.restarts().get(name) == before + 1, within=60, what="the restart", every=0.5)
    installed.wait_ready(service)


@pytest.fixture(scope="module")
def wrong_secret(installed: Mill) -> None:
    """It is there, has the key, and leads to no Valkey."""
    url = f"--from-literal=url=redis://{MACHINE}:1/0"
    installed.kubectl("create", "secret", "generic", "wrong-valkey", url)


@pytest.mark.usefixtures("wrong_secret")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param("image.tag=nowhere", "nowhere", id="an-image-that-is-not-there"),
        pytest.param("valkey.secretName=not-there", 'secret "not-there" not found', id="no-secret"),
        pytest.param("valkey.secretName=wrong-valkey", "check MILLSTREAM_VALKEY", id="a-wrong-secret"),
        pytest.param("resources.limits.memory=128Mi", '"reason": "OOMKilled"', id="too-little-memory"),
    ],
)
def test_a_bad_release_stops_and_the_old_one_answers(change: str, why: str, node: RealNode, installed: Mill) -> None:
    old = {pod["metadata"]["name"] for pod in installed.pods("serving")}

    try:
        with Load(installed.address("serving"), "serving") as load, pytest.raises(Said):
            installed.upgrade(f"serving.{change}", wait=60)

        assert load.failed == []
        assert load.answered > 100
        pods = {pod["metadata"]["name"] for pod in installed.pods("serving")}
        assert old <= pods
        (new,) = pods - old
        wait_until(lambda: why in installed.told(new), within=120, what=f"{why} about {new}", every=1)
    finally:  # the next release is not to begin with this one's fault
        installed.rollback()
    installed.wait_ready("serving")


def test_uninstalling_leaves_only_ended_training(node: RealNode, installed: Mill) -> None:
    installed.helm("uninstall", RELEASE, "--wait", "--timeout", "120s", within=150)

    def left() -> set[str]:
        jobs = installed.kubectl.get("jobs,pods", "-l", "app.kubernetes.io/name!=training")["items"]
        kinds = "deployments,services,roles,rolebindings,poddisruptionbudgets"
        return installed.kubectl.names(kinds) | {one["metadata"]["name"] for one in jobs}

    # The trainer made its Jobs: they are none of the release's, and stay for their log (training.ttlSecondsAfterFinished).
    wait_until(lambda: left() == set(), within=120, what="everything of the release to go", every=1)
