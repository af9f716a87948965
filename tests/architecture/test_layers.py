"""The layers of ARCHITECTURE hold, and the contracts that hold them can fail."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from faststream import AckPolicy

from millstream.runtime.consuming import options
from millstream.runtime.handling import AT_ONCE
from millstream.runtime.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path for path in ROOT.glob("*/*/src/millstream*") if path.is_dir())


LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
"""In a process of its own: it disables every logger of the one in which it runs, and later tests hear nothing more."""


def linted(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_import_contracts_are_kept() -> None:
    done = linted(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_service_that_imports_another_would_be_noticed(tmp_path: Path) -> None:
    """The suite proves itself: the same contracts over a tree in which ingest reaches into trainer's domain."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    for name in config["root_packages"]:
        package = tmp_path / name
        for room in ("domain", "adapters"):
            (package / room).mkdir(parents=True)
            (package / room / "__init__.py").touch()
        for module in ("__init__", "app", "api", "settings", "subscribers", "handlers", "metrics"):
            (package / f"{module}.py").touch()
    for package_name in ("project", "runtime", "testing"):
        (tmp_path / "millstream" / package_name).mkdir()
        (tmp_path / "millstream" / package_name / "__init__.py").touch()
    (tmp_path / "millstream_ingest" / "domain" / "__init__.py").write_text(
        "import asyncio\nimport millstream_trainer.domain\nimport millstream_ingest.adapters\nimport fastapi\n"
    )
    (tmp_path / "millstream" / "runtime" / "__init__.py").write_text("import feast\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())

    found = linted(tmp_path, PYTHONPATH=str(tmp_path)).stdout

    broken = [line for line in found.splitlines() if line.endswith("BROKEN")]
    assert len(broken) == 5, found


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a module, by the last part of what is called."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node


def test_only_the_runtime_consumes() -> None:
    """Every subscriber goes through runtime/delivery.py: the libraries' own defaults lose or loop on records.

    Whoever only looks at a topic (the CLI, positions for a training run) may do so, but never as a member of a group.
    """
    offenders = []
    for path in (file for package in PACKAGES for file in package.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("libs/core/src/millstream/runtime/"):
            continue
        for called, call in _calls(path):
            member = any(k.arg == "group_id" and ast.unparse(k.value) != "None" for k in call.keywords)
            if called in ("subscriber", "subscribe", "KafkaBroker") or (called == "AIOKafkaConsumer" and member):
                offenders.append(f"{name}:{call.lineno} {called}")

    assert offenders == []


def test_the_runtime_subscribes_with_manual_acknowledgement_and_from_the_beginning() -> None:
    said = options(ServiceSettings(), "group", AT_ONCE, None)
    delivery = ROOT / "libs/core/src/millstream/runtime/delivery.py"
    [subscriber] = [call for called, call in _calls(delivery) if called == "subscriber"]

    assert {k.arg: ast.unparse(k.value).partition("(")[0] for k in subscriber.keywords} == {
        None: "options",
        "listener": "self",
    }
    assert said["ack_policy"] is AckPolicy.MANUAL
    assert said["auto_offset_reset"] == "earliest"
    assert "max_workers" not in said
