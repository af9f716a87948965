"""Policies: loop files that say what a loop might have done instead, each checked against the project it is for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from millstream.project import BadProject, Loop, Project, load_project
from millstream_backtest.errors import BacktestFailed

CURRENT = "as it is"
"""Name of the policy that the project has."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A loop under a name that its figures go by."""

    name: str
    loop: Loop


def read_policies(project: Project, loop: str, files: Sequence[Path]) -> list[Policy]:
    """The project's own, then those of `files`. Raises BacktestFailed, and BadProject with every mistake in a file."""
    if loop not in project.loops:
        raise BacktestFailed(f"no loop {loop!r} in {project.path}; found: {', '.join(project.loops) or 'none'}")
    found = [Policy(name=CURRENT, loop=project.loops[loop])]
    stems = [file.stem for file in files]
    for file in files:
        name = file.stem if stems.count(file.stem) == 1 else str(file)
        if any(policy.name == name for policy in found):
            raise BacktestFailed(f"{file}: named twice")
        found.append(Policy(name=name, loop=_read(project, loop, file)))
    return found


def _read(project: Project, loop: str, file: Path) -> Loop:
    if not file.is_file():
        raise BacktestFailed(f"{file}: not there; a policy is a loop file, like loops/{loop}.yaml with other values")
    if file.suffix not in (".yaml", ".yml"):
        raise BacktestFailed(f"{file}: a policy is a .yaml file")
    with TemporaryDirectory(prefix="millstream-policy-") as folder:
        stand_in = Path(folder)
        for part in ("streams", "features"):
            (stand_in / part).symlink_to((project.path / part).absolute())
        (stand_in / "loops").mkdir()
        shutil.copy(file, stand_in / "loops" / file.name)
        try:
            loops = load_project(stand_in).loops
        except BadProject as error:
            mine = f"loops/{file.name}"
            raise BadProject(
                replace(one, file=str(file)) if one.file == mine else one for one in error.problems
            ) from error
    if set(loops) != {loop}:
        raise BacktestFailed(f"{file}: declares loop {', '.join(loops)}; a policy for {loop!r} declares loop: {loop}")
    return loops[loop]
