"""The tools that judge the charts. Without them the tests that need one are skipped, with the reason; `make test-deploy` builds
them first, and then a missing one is an error.

A control plane is started by `make test-deploy` alone: it takes a minute and a gigabyte. Where its programs could not be built,
the tests on it are skipped there too, or with MILLSTREAM_MUST they fail. Images are built, and a node is started, by
`make test-node` alone.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from millstream.testing.cache import cache_folder

from . import kube_schemas, plane_tools
from .base_image import base_image
from .control_plane import ControlPlane
from .engine import Docker, engine
from .images import Image, build
from .keda import install_keda
from .kubectl import Helm, Kubectl
from .must import lacks
from .report import Report
from .tools import TOOLS, NoTool

MENDS = "run: make test-deploy (it builds the tools, with Go, in some minutes)"


def found(name: str, path: Path) -> Path:
    if path.exists():
        return path
    if os.environ.get("MILLSTREAM_DEPLOY"):
        pytest.fail(f"{name} is not in {path.parent}; {MENDS}")
    lacks(f"no {name} here; {MENDS}")


def tool(name: str) -> Path:
    pinned = next(one for one in TOOLS if one.name == name)
    return found(f"{name} {pinned.version}", pinned.path(cache_folder()))


@pytest.fixture(scope="session")
def helm() -> Path:
    return tool("helm")


@pytest.fixture(scope="session")
def kubeconform() -> Path:
    return tool("kubeconform")


@pytest.fixture(scope="session")
def kube_score() -> Path:
    return tool("kube-score")


@pytest.fixture(scope="session")
def helm_unittest() -> Path:
    return tool("helm-unittest")


@pytest.fixture(scope="session")
def schemas() -> Path:
    return found("schemas of Kubernetes", kube_schemas.folder(cache_folder()))


@pytest.fixture(scope="session")
def promtool() -> Path:
    return tool("promtool")


def pytest_configure(config: pytest.Config) -> None:
    for variable, name in (("MILLSTREAM_DEPLOY", "deploy"), ("MILLSTREAM_NODE", "node")):
        if os.environ.get(variable):
            config.pluginmanager.register(Report(name))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test's time is its own: else who comes first pays for the control plane, which all share, and which takes minutes on a
    busy machine. Each of its parts has a bound of its own."""
    for item in items:
        if isinstance(item, pytest.Function) and "plane" in item.fixturenames:
            known = item.get_closest_marker("timeout")
            seconds = known.args[0] if known else float(config.getini("timeout"))
            item.add_marker(pytest.mark.timeout(seconds, func_only=True), append=False)


def built(*groups: plane_tools.Programs) -> None:
    if lacking := plane_tools.missing(cache_folder(), *groups):
        lacks(f"no {lacking[0].name} in {lacking[0].parent}: python -m tests.deploy.plane_tools says why")


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for the session, with every CRD that the charts have a flag for."""
    if not os.environ.get("MILLSTREAM_DEPLOY"):
        pytest.skip("needs a control plane, which `make test-deploy` starts")
    built(*plane_tools.PLANE)
    with ControlPlane(tmp_path_factory.mktemp("plane")).running() as started:
        started.install_crds()
        started.kubectl("create", "priorityclass", "mill", "--value=1000")  # that the examples ask for
        yield started


@pytest.fixture(scope="session")
def keda(plane: ControlPlane) -> ControlPlane:
    """The same, with KEDA at work."""
    built(plane_tools.SCALER)
    install_keda(plane)
    return plane


@pytest.fixture
def kubectl(plane: ControlPlane) -> Iterator[Kubectl]:
    """In a namespace of this test's own, where Pod Security refuses what is not `restricted`."""
    name = f"mill-{uuid.uuid4().hex[:8]}"
    yield plane.namespace(name)
    plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def releases(helm: Path, kubectl: Kubectl) -> Helm:
    """Helm in that namespace."""
    return Helm(program=helm, kubeconfig=kubectl.kubeconfig, namespace=kubectl.namespace)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """An engine, and the image that ours stand on."""
    if not os.environ.get("MILLSTREAM_NODE"):
        pytest.skip("builds and runs images, which `make test-node` does")
    try:
        with engine(tmp_path_factory.mktemp("engine") / "dockerd.log") as found:
            base_image(found)
            yield found
    except NoTool as error:
        lacks(str(error))


@pytest.fixture(scope="session")
def images(docker: Docker) -> Callable[[str], Image]:
    """Of a service, or of the command line (cli), as its Dockerfile makes it now."""
    return cache(lambda which: build(docker, which))
