"""The workflows of GitHub: understood by actionlint, every action by its hash, every make target there, least rights."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .charts import ROOT, SERVICES, read_yaml
from .conftest import tool

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in read_yaml(workflow)["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(workflow: Path) -> None:
    # Without shellcheck, which a machine may have or not.
    said = subprocess.run(
        [tool("actionlint"), "-shellcheck=", "-pyflakes=", workflow], capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_actionlint_would_find_something(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:", 1))
    said = subprocess.run([tool("actionlint"), wrong], capture_output=True, text=True, timeout=60)
    assert said.returncode == 1


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_one_commit_and_says_its_version(workflow: Path) -> None:
    used = [line for line in workflow.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_a_developer_calls(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for step in steps(workflow):
        assert set(re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))) <= targets


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_nobody_may_write_but_a_signature(workflow: Path) -> None:
    said = read_yaml(workflow)
    assert said["permissions"] == {"contents": "read"}
    for job in said["jobs"].values():
        assert job.get("permissions", {}).items() <= {"contents": "read", "id-token": "write"}.items()
        assert job["timeout-minutes"] <= 180
        # What somebody else wrote, as a branch's name, is never put into a script.
        assert not any("${{" in step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_image_is_built(workflow: Path) -> None:
    images = read_yaml(workflow)["jobs"]["images"]["strategy"]["matrix"]["image"]
    assert set(images) == {*SERVICES, "cli"}
    for image in images:
        folder = ROOT / "libs" / "cli" if image == "cli" else ROOT / "services" / image
        assert (folder / "Dockerfile").is_file()
