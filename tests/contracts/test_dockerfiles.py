"""What can be seen of a Dockerfile without building it: all of ours that its packages need is copied and installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = {
    tomllib.loads(file.read_text())["project"]["name"]: file.parent
    for folder in ("libs", "services")
    for file in (ROOT / folder).glob("*/pyproject.toml")
}
DOCKERFILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/Dockerfile"))


def needed(folder: Path) -> set[Path]:
    """The folder and those of ours that it needs, and they need."""
    found = {folder}
    for wanted in tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]:
        name = re.split(r"[\[<>=~ ]", wanted)[0]
        if name in PROJECTS:
            found |= needed(PROJECTS[name])
    return found


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_has_every_package_of_ours_that_it_needs(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    (installed,) = re.findall(r"^RUN uv pip install (.*--no-deps.*)$", text, flags=re.MULTILINE)
    wanted = {folder.relative_to(ROOT).as_posix() for folder in needed((ROOT / dockerfile).parent)}

    assert set(re.findall(r"\./(\S+)", installed)) == wanted
    # uv takes `tool.uv.sources` to mean the workspace, and there is none in an image.
    assert "--no-sources" in installed
    copied = set(re.findall(r"^COPY (?!--from)(\S+) ", text, flags=re.MULTILINE))
    assert all(any(folder == one or folder.startswith(f"{one}/") for one in copied) for folder in wanted)
