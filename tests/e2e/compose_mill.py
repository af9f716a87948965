"""Services of docker-compose.yml as processes of this machine: told what a container would be, with names and paths of here.

Every name of a service with its port must be one at which that service really listens, and every absolute path must lie in
what is mounted; what is neither is a mistake of the file, and is said so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.waiting import wait_until

from .compose_file import ROOT, Service

HERE = {"/opt/venv/bin": str(Path(sys.executable).parent)}
"""What the images bring along."""

_PATH = re.compile(r"(?<![\w:/.])/[\w.-]+(?:/[\w.-]+)*")


class ComposeMill:
    """Runs services one by one, each as the user of its image where we may become another."""

    def __init__(self, services: Mapping[str, Service], folder: Path, servers: Mapping[tuple[str, int], str]) -> None:
        """`servers`: (name, port) of each server that the embedded ones stand for → `host:port` here."""
        self._services = services
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.servers = dict(servers)
        self._addresses = dict(servers)
        self.urls: dict[str, str] = {}
        self.processes: dict[str, ManagedProcess] = {}
        self._ports: dict[str, tuple[int, int]] = {}
        """Of each built service: what its container listens on → here."""
        for name, service in services.items():
            if service.image is not None and (port := service.image.environment.get("MILLSTREAM_PORT")):
                self._ports[name] = int(port), free_port()
                self._addresses[name, int(port)] = f"127.0.0.1:{self._ports[name][1]}"
                self.urls[name] = f"http://127.0.0.1:{self._ports[name][1]}"

    def run(self, name: str, *more: str, within: float = 300) -> str:
        """A job to its end; what it said. Raises AssertionError where it fails."""
        args, environment, cwd = self._told(name, more)
        done = subprocess.run(
            args, env={**_bare(), **environment}, cwd=cwd, capture_output=True, text=True, timeout=within, check=False
        )
        assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def start(self, name: str) -> None:
        """A service, without waiting."""
        args, environment, cwd = self._told(name, ())
        # `env -i`: a container has nothing of this machine's environment.
        bare = [f"{key}={value}" for key, value in {**_bare(), **environment}.items()]
        process = ManagedProcess(
            name, ["env", "-i", *bare, *args], log=self._folder / "logs" / f"{name}.log", cwd=cwd, ready_within=120
        )
        self.processes[name] = process
        process.launch()

    def healthy(self, name: str, within: float = 120) -> None:
        """Until the image's own health check is content. Raises AssertionError, WaitedTooLong."""
        service, process = self._services[name], self.processes[name]
        assert service.image is not None
        assert service.image.healthcheck is not None, f"{name} has no health check"
        inside, here = self._ports[name]
        check = [self._here(name, word).replace(f"127.0.0.1:{inside}", f"127.0.0.1:{here}") for word in
                 service.image.healthcheck]  # fmt: skip

        def well() -> bool:
            assert process.alive(), f"{name} ended with {process.returncode}:\n{process.log_tail()}"
            return subprocess.run(check, capture_output=True, timeout=30, check=False).returncode == 0

        wait_until(well, within=within, what=f"{name}'s own health check")

    def stop(self) -> None:
        for process in self.processes.values():
            process.ask_to_end()
        for process in self.processes.values():
            process.terminate(grace=30)

    def volume(self, name: str) -> Path:
        return self._folder / "volumes" / name

    def _told(self, name: str, more: Sequence[str]) -> tuple[list[str], dict[str, str], Path]:
        service = self._services[name]
        image = service.image
        self._make_volumes(service)
        cwd = self._folder / "cwd" / name  # a container's is "/", where nobody but root writes
        cwd.mkdir(parents=True, exist_ok=True)
        told = [*(service.entrypoint or (image.entrypoint if image else [])), *service.command, *more]
        environment = {**(image.environment if image else {}), **service.environment}
        environment = {key: self._here(name, value) for key, value in environment.items()}
        if name in self._ports:
            environment["MILLSTREAM_PORT"] = str(self._ports[name][1])
            assert environment["MILLSTREAM_HOST"] == "0.0.0.0", "or no other container reaches it"
            environment["MILLSTREAM_HOST"] = "127.0.0.1"
        return [*_as(image.user if image else 0), *(self._here(name, word) for word in told)], environment, cwd

    def _make_volumes(self, service: Service) -> None:
        for mount in service.mounts:
            if mount.source.startswith("./"):
                assert (ROOT / mount.source).exists(), mount.source
                continue
            folder = self.volume(mount.source)
            if not folder.exists():
                folder.mkdir(parents=True)
                if service.image is not None and mount.target in service.image.owned and os.getuid() == 0:
                    os.chown(folder, service.image.user, service.image.user)
        (self._folder / "tmp" / service.name).mkdir(parents=True, exist_ok=True)
        (self._folder / "tmp" / service.name).chmod(0o1777)

    def _here(self, name: str, text: str) -> str:
        """Names and ports of other services, and paths of the container, as they are here. Raises AssertionError."""
        service = self._services[name]
        others = "|".join(sorted(map(re.escape, self._services), key=len, reverse=True))

        def address(found: re.Match[str]) -> str:
            asked = found[1], int(found[2])
            assert asked in self._addresses, f"{name} is told {found[0]}, and nobody listens there"
            return self._addresses[asked]

        def path(found: re.Match[str]) -> str:
            said = found[0]
            for inside, here in HERE.items():
                if said.startswith(inside):
                    assert Path(here + said.removeprefix(inside)).exists(), (
                        f"{name} starts {said}, which no package brings"
                    )
                    return here + said.removeprefix(inside)
            if said == "/tmp" or said.startswith("/tmp/"):
                return str(self._folder / "tmp" / name) + said.removeprefix("/tmp")
            for mount in service.mounts:
                if said == mount.target or said.startswith(f"{mount.target}/"):
                    root = ROOT / mount.source if mount.source.startswith("./") else self.volume(mount.source)
                    return str(root) + said.removeprefix(mount.target)
            raise AssertionError(f"{name} is told {said}, and nothing is mounted there")

        text = re.sub(rf"(?<![\w.-])({others}):(\d+)", address, text)
        return text if "://" in text and " " not in text else _PATH.sub(path, text)


def _as(user: int) -> list[str]:
    """Words before a command that run it as `user`, where we may; a service must not need to be root."""
    if user == 0 or os.getuid() != 0 or shutil.which("setpriv") is None:
        return []
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
    return words if _runs_python(tuple(words)) else []


@cache
def _runs_python(words: tuple[str, ...]) -> bool:
    """Whether this Python and its library are where that user may read: one in the home of root is not."""
    asks = f"import os, subprocess as s, sys; assert os.__file__ == {os.__file__!r}; s.run([sys.executable, '-V'], check=True)"
    return subprocess.run([*words, sys.executable, "-c", asks], capture_output=True, check=False).returncode == 0


def _bare() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
