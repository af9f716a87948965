"""Each service installs its own dependencies and no other's; the locks carry hashes, never addresses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
SERVICES = {"ingest", "features", "trainer", "serving", "drift"}
ELSEWHERE = {
    "ingest": {"feast", "evidently", "mlflow", "lightgbm", "kubernetes", "onnxruntime", "polars", "deltalake"},
    "features": {"evidently", "mlflow", "lightgbm", "kubernetes"},
    "serving": {"evidently", "mlflow", "lightgbm", "kubernetes"},
    "drift": {"feast", "mlflow", "lightgbm", "kubernetes"},
    "trainer": {"evidently"},
}
"""What a service must not carry: Evidently is drift's alone, Feast belongs to features, serving and trainer."""


def packages(lock: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", lock.read_text(), re.MULTILINE))


def test_there_is_one_lock_a_service_and_one_for_developers() -> None:
    assert {lock.stem for lock in LOCKS} >= SERVICES | {"dev"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_carries_no_other_services_libraries(service: str) -> None:
    carried = packages(ROOT / "locks" / f"{service}.txt")

    assert carried & ELSEWHERE[service] == set()
    assert carried >= {"aiokafka", "faststream", "fastapi", "msgspec"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_a_hash_for_every_package_and_no_address(lock: Path) -> None:
    text = lock.read_text()

    assert "://" not in text
    assert not re.search(r"^\s*--(index|extra-index|find-links|trusted)", text, re.MULTILINE)
    for block in re.split(r"\n(?=\S)", text):
        if "==" in block.partition("\n")[0] and not block.startswith("#"):
            assert "--hash=sha256:" in block, f"{lock.name}: {block.splitlines()[0]} has no hash"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_developers_test_with_the_versions_that_are_deployed(service: str) -> None:
    def versions(lock: str) -> dict[str, str]:
        pattern = r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)"
        return dict(re.findall(pattern, (ROOT / "locks" / f"{lock}.txt").read_text(), re.MULTILINE))

    developers, deployed = versions("dev"), versions(service)

    assert {name: v for name, v in deployed.items() if developers.get(name) != v} == {}
