"""docker-compose.yml and the Dockerfiles name only what exists: settings, services, files."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from millstream.runtime.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "features", "trainer", "serving", "drift")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return loaded


def settings_of(service: str) -> set[str]:
    module = importlib.import_module(f"millstream_{service}.settings")
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, ServiceSettings)]
    return {f"MILLSTREAM_{name.upper()}" for cls in classes for name in cls.model_fields}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_only_variables_that_some_service_reads(service: str) -> None:
    known = set().union(*(settings_of(s) for s in SERVICES))
    given = set(compose()["services"][service]["environment"])
    assert given <= known
    own = given - {
        "MILLSTREAM_KAFKA",
        "MILLSTREAM_VALKEY",
        "MILLSTREAM_LAKE",
        "MILLSTREAM_PACKAGES",
        "MILLSTREAM_MLFLOW",
    }
    assert own <= settings_of(service)


def test_what_is_waited_for_exists_and_says_when_it_is_healthy() -> None:
    services = compose()["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}, which is not there"
            if condition["condition"] == "service_healthy":
                built = other in SERVICES  # their images carry a health check
                assert built or "healthcheck" in services[other], f"{name} waits for {other}'s health check"


def test_ports_are_published_on_loopback_only() -> None:
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name} publishes {port}"


def test_volumes_that_are_used_are_declared() -> None:
    found = compose()
    used = {
        volume.split(":")[0]
        for service in found["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "/"))
    }
    assert used == set(found["volumes"])


@pytest.mark.parametrize("dockerfile", [*(f"services/{s}/Dockerfile" for s in SERVICES), "libs/cli/Dockerfile"])
def test_a_dockerfile_copies_what_is_there_and_does_not_run_as_root(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, flags=re.MULTILINE):
        assert (ROOT / source).exists(), f"{dockerfile} copies {source}"
    assert "USER 10001:10001" in text
    assert "--require-hashes" in text
