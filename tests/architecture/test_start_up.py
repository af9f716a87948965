"""Importing does nothing and brings nothing heavy along: a service starts in the time that its own work needs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "features", "trainer", "serving", "drift")
HEAVY = (
    "feast",
    "evidently",
    "mlflow",
    "lightgbm",
    "onnxruntime",
    "kubernetes",
    "pandas",
    "polars",
    "pyarrow",
    "sklearn",
    "fastavro",
    "grpc",
    "httpx",
)

LOOK = """
import asyncio, json, os, socket, sys, threading
opened = []
real = socket.socket.connect
socket.socket.connect = lambda self, address: opened.append(str(address)) or real(self, address)
before = set(os.listdir("."))
import millstream_{service}.app
import prometheus_client
print(json.dumps({{
    "heavy": sorted(set({heavy}) & set(sys.modules)),
    "connections": opened,
    "threads": [thread.name for thread in threading.enumerate()][1:],
    "files": sorted(set(os.listdir(".")) - before),
    "metrics": sorted(n for n in prometheus_client.REGISTRY._names_to_collectors if n.startswith("millstream")),
}}))
"""


def look(service: str, folder: Path) -> dict[str, list[str]]:
    """Import a service's front door in a fresh process that knows no settings, and see what that did."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK.format(service=service, heavy=HEAVY)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    said: dict[str, list[str]] = json.loads(found.stdout)
    return said


@pytest.mark.parametrize("service", SERVICES)
def test_importing_a_front_door_does_nothing(service: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(f"millstream_{service}.app") is None:
        pytest.fail(f"services/{service} has no app.py")

    seen = look(service, tmp_path)

    for what in ("connections", "threads", "files", "metrics"):
        assert seen[what] == [], f"importing {service} leaves {what}"
    light = set(seen["heavy"]) & {"feast", "evidently", "mlflow", "lightgbm", "kubernetes"}
    assert light == set(), f"importing {service} brings {sorted(light)} along; import them where they are used"


def test_ingest_carries_nothing_heavy_at_all(tmp_path: Path) -> None:
    assert look("ingest", tmp_path)["heavy"] == []
