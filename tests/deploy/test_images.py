"""Our images as they are built: what is in them, how large they are, and that each service runs in its own as a pod would."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import HOST, free_port
from millstream.testing.valkey import EmbeddedValkey
from millstream.testing.waiting import wait_until
from millstream_cli.offsets import Offsets
from millstream_cli.topics import topics_of

from .charts import ROOT, SERVICES
from .engine import Docker
from .images import DOCKERFILES, TAG, Image, table

pytestmark = pytest.mark.timeout(3600)  # the first that asks for images waits until they are built

FLIGHTS = ROOT / "examples" / "flights"
ONLY_IN = {
    "evidently": {"drift"},
    "kubernetes": {"trainer"},
    "lightgbm": {"trainer"},
    "mlflow": {"cli"},  # `millstream up` starts its server
    "mlflow-skinny": {"trainer", "cli"},
    "onnxruntime": {"serving", "trainer", "drift", "cli"},
    "feast": {"features", "serving", "trainer", "cli"},
    "pytest": set(),
    "ruff": set(),
}
"""Distribution: the images that may have it."""
READY_WITHIN = 120
STOP_WITHIN = 30
DISTRIBUTIONS = "import importlib.metadata as m; print(*{d.metadata['Name'].lower() for d in m.distributions()})"
WHO = "import os; print(os.getuid(), os.getgid(), *[l.split()[1] for l in open('/proc/self/status') if l[:6] == 'CapEff'])"
WRITES = "open('/opt/venv/here', 'w')"
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")


@pytest.mark.parametrize("which", DOCKERFILES)
def test_an_image_has_what_it_needs_and_nothing_else(
    which: str, images: Callable[[str], Image], docker: Docker
) -> None:
    said = docker("run", "--rm", "--entrypoint=/opt/venv/bin/python", images(which).name, "-c", DISTRIBUTIONS)
    there = set(said.split())

    assert f"millstream-{which}" in there
    assert {f"millstream-{other}" for other in DOCKERFILES if other != which}.isdisjoint(there)
    assert there & not_for(which) == set()


@pytest.mark.parametrize("which", DOCKERFILES)
def test_a_lock_has_nothing_that_is_not_for_its_image(which: str) -> None:
    lock = (ROOT / "locks" / f"{which}.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9._-]+)==", lock, flags=re.MULTILINE))

    assert len(locked) > 10
    assert locked & not_for(which) == set()


def not_for(which: str) -> set[str]:
    """Distributions that are in other images alone, or in none."""
    return {name for name, may in ONLY_IN.items() if which not in may}


def test_the_table_has_the_smallest_first() -> None:
    made = [
        Image(name=f"millstream/{which}:{TAG}", size=size, own=size - 100_000_000, seconds=1.0)
        for which, size in (("trainer", 1_814_400_000), ("ingest", 363_000_000))
    ]

    assert table(made).splitlines()[2:] == [
        "| `millstream/ingest` | 363 | 263 |",
        "| `millstream/trainer` | 1,814 | 1,714 |",
    ]


def test_ingest_is_the_smallest(images: Callable[[str], Image]) -> None:
    sizes = {which: images(which).size for which in SERVICES}

    assert min(sizes, key=sizes.__getitem__) == "ingest", sizes


def test_the_command_makes_topics_from_its_image(
    images: Callable[[str], Image], docker: Docker, kafka: EmbeddedKafka
) -> None:
    arguments = ("topics", "--project=/project", f"--kafka={kafka.bootstrap}")
    run = ("run", "--rm", "--network=host", *HARDENED, f"--volume={FLIGHTS}:/project:ro", images("cli").name)

    docker(*run, *arguments)

    there = asyncio.run(topics_there(kafka.bootstrap))
    assert {"flights-departed", "millstream-models"} <= there


async def topics_there(bootstrap: str) -> set[str]:
    offsets = Offsets(bootstrap)
    await offsets.start()
    try:
        return set(await offsets.topics())
    finally:
        await offsets.stop()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that whoever runs in the containers may write."""
    folder = tmp_path / "shared"
    for path in (folder, folder / "lake", folder / "packages"):
        path.mkdir()
        path.chmod(0o777)
    return folder


@pytest.fixture
def container(docker: Docker) -> Iterator[str]:
    """A name; what has it is gone afterwards."""
    name = f"mill-{uuid.uuid4().hex[:8]}"
    yield name
    docker("rm", "--force", name)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_as_nobody_on_a_root_that_is_read_only(
    service: str,
    images: Callable[[str], Image],
    docker: Docker,
    kafka: EmbeddedKafka,
    valkey: EmbeddedValkey,
    shared: Path,
    container: str,
) -> None:
    asyncio.run(ensure_topics(kafka.bootstrap, topics_of(load_project(FLIGHTS), partitions=1)))
    port = free_port()
    settings = {
        "MILLSTREAM_HOST": HOST,
        "MILLSTREAM_PORT": str(port),
        "MILLSTREAM_KAFKA": kafka.bootstrap,
        "MILLSTREAM_AUTH": "off",
        "MILLSTREAM_VALKEY": valkey.url,
        "MILLSTREAM_LAKE": "/shared/lake",
        "MILLSTREAM_PACKAGES": "/shared/packages",
    }
    docker(
        *("run", "--detach", f"--name={container}", "--network=host", *HARDENED),
        # As an emptyDir is with fsGroup.
        *("--tmpfs=/data:uid=10001,gid=10001", f"--volume={FLIGHTS}:/project:ro", f"--volume={shared}:/shared"),
        *(f"--env={name}={value}" for name, value in settings.items()),
        images(service).name,
    )

    def ready() -> bool:
        state = json.loads(docker("inspect", "--format={{json .State}}", container))
        assert state["Running"], docker("logs", container)
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_until(ready, within=READY_WITHIN, what=f"{service} in its container", every=0.5)

    python = ("exec", container, "/opt/venv/bin/python", "-c")
    assert docker(*python, WHO).split() == ["10001", "10001", "0" * 16]
    with pytest.raises(Exception, match="Read-only file system"):
        docker(*python, WRITES)
    docker("stop", f"--time={STOP_WITHIN}", container, within=2 * STOP_WITHIN)
    assert json.loads(docker("inspect", "--format={{json .State}}", container))["ExitCode"] == 0, (
        "SIGTERM was not heard"
    )
