"""Where the pods of the node are counted and bounded: a cgroup of its own, so that what is in it is ours to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from millstream.testing.waiting import wait_until

ROOT = Path("/sys/fs/cgroup")
EMPTY_WITHIN = 20
SHARES, WEIGHT = 20 * 1024, 20 * 100
"""Of CPU, as version 1 and version 2 say it: what twenty processes have. Else all pods together had what one has, and on a
busy machine none would start in time."""


def hierarchies() -> list[Path]:
    """One with version 2, one for each controller with version 1."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [path for path in ROOT.iterdir() if (path / "cgroup.procs").exists()]


def make(name: str) -> str:
    """The name. Kubelet wants it to be there."""
    for hierarchy in hierarchies():
        folder = hierarchy / name
        folder.mkdir(exist_ok=True)
        if (hierarchy / "cgroup.subtree_control").exists() and hierarchy == ROOT:
            controllers = (hierarchy / "cgroup.controllers").read_text().split()
            (hierarchy / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in controllers))
        for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts a cgroup with none, and then nothing may join
            if (folder / setting).exists() and not (folder / setting).read_text().strip():
                (folder / setting).write_text((hierarchy / setting).read_text())
        for setting, value in (("cpu.shares", SHARES), ("cpu.weight", WEIGHT)):
            if (folder / setting).exists():
                (folder / setting).write_text(str(value))
    return name


def members(name: str) -> Iterator[int]:
    for hierarchy in hierarchies():
        for file in (hierarchy / name).rglob("cgroup.procs"):
            with suppress(OSError):
                yield from map(int, file.read_text().split())


def remove(name: str) -> None:
    """With who is in it. Twice is safe."""

    def ended() -> bool:
        found = set(members(name))
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    wait_until(ended, within=EMPTY_WITHIN, what=f"the processes of the cgroup {name} to end")
    for hierarchy in hierarchies():
        folders = [path for path in (hierarchy / name).rglob("*") if path.is_dir()]
        for folder in (*sorted(folders, key=lambda path: len(path.parts), reverse=True), hierarchy / name):
            with suppress(OSError):
                folder.rmdir()
