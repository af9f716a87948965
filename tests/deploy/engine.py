"""A Docker engine: the one that answers here, or the distribution's, started for as long as it is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millstream.testing.errors import ServerDidNotStart
from millstream.testing.process import ManagedProcess

from .tools import NoTool

# A distribution's client before one that came alone: the newer ones build only with a plug-in of their own.
PATH = f"/usr/bin:{os.environ.get('PATH', '')}"
READY_WITHIN = 60.0


class Docker:
    """Commands to one engine."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __call__(self, *arguments: str | Path, given: bytes | None = None, within: float = 120) -> str:
        """What it prints. Raises NoTool with what it said."""
        said = subprocess.run(
            [self.program, *map(str, arguments)],
            env=os.environ | {"PATH": PATH, "DOCKER_BUILDKIT": "1"},
            input=given,
            capture_output=True,
            check=False,
            timeout=within,
        )
        if said.returncode:
            printed = (said.stderr + said.stdout).decode(errors="replace").strip()
            raise NoTool(f"docker {' '.join(map(str, arguments))[:200]}:\n{printed[-2000:]}")
        return said.stdout.decode(errors="replace")

    def answers(self) -> bool:
        try:
            self("version", "--format", "{{.Server.Version}}", within=20)
        except (NoTool, subprocess.TimeoutExpired):
            return False
        return True

    def has(self, image: str) -> bool:
        """Whether it is here; nothing is fetched."""
        try:
            self("image", "inspect", image)
        except NoTool:
            return False
        return True


@contextmanager
def engine(log: Path) -> Iterator[Docker]:
    """What answers, or what is started and stopped with the context. Raises NoTool."""
    program = shutil.which("docker", path=PATH)
    if program is None:
        raise NoTool("there is no docker here; on Debian: apt-get install docker.io")
    docker = Docker(program)
    if docker.answers():
        yield docker
        return
    daemon = shutil.which("dockerd", path=PATH)
    if daemon is None or os.geteuid() != 0:
        raise NoTool("no Docker engine answers, and only root can start one, with dockerd (on Debian: docker.io)")
    process = ManagedProcess("dockerd", [daemon], log=log, ready=docker.answers, ready_within=READY_WITHIN)
    try:
        process.start()
    except ServerDidNotStart as error:
        raise NoTool(f"no Docker engine answers, and none starts: {error}") from error
    try:
        yield docker
    finally:
        process.terminate(grace=30)
