"""The tools that judge the charts and the alerts. Without them the tests that need one are skipped, with the reason; `make
test-deploy` builds them first, and then a missing one is an error.

A control plane is started by `make test-deploy` alone: it takes a minute and a gigabyte. Where its programs could not be built,
the tests on it are skipped there too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from millstream.testing.cache import cache_folder

from . import kube_schemas
from .tools import TOOLS

MENDS = "run: make test-deploy (it builds the tools, with Go, in some minutes)"


def found(name: str, path: Path) -> Path:
    if path.exists():
        return path
    if os.environ.get("MILLSTREAM_DEPLOY"):
        pytest.fail(f"{name} is not in {path.parent}; {MENDS}")
    pytest.skip(f"no {name} here; {MENDS}")


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
