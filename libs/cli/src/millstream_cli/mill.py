"""The whole mill on one machine: embedded servers, topics, and the five service processes, supervised."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.request import urlopen

from millstream.project import Project
from millstream.runtime.kafka_security import KafkaSecurity
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.folder import FolderLock
from millstream.testing.ports import claim
from millstream.testing.process import ManagedProcess, Usage
from millstream.testing.stack import EmbeddedStack
from millstream_cli.errors import CommandFailed
from millstream_cli.hints import options
from millstream_cli.topics import topics_of

SERVICES = ("ingest", "features", "serving", "drift", "trainer")
PORTS = {"ingest": 8101, "features": 8102, "serving": 8103, "drift": 8104, "trainer": 8105}
"""Where `millstream up` puts the services, unless MILLSTREAM_PORT_INGEST and so on say otherwise; `demo` takes free ports."""

SERVERS = "servers"
"""Folder of the embedded servers in a mill's."""
POSITION = "replay.json"
"""File in a mill's folder: how far the last replay into it came."""

RESTARTS = 20
"""A service that ended this often is broken, not unlucky; then the mill stops instead of hiding it."""

BAD_SETTINGS = 2
"""Exit status of a service that cannot run as it was told to; starting it again would change nothing."""


@dataclass(frozen=True, kw_only=True)
class MillState:
    """What other commands need to know of a running mill; lies in its folder as mill.json."""

    pid: int
    project: str
    kafka: str
    valkey: str
    mlflow: str | None
    services: dict[str, str]
    lake: str
    packages: str
    registry: str
    logs: str

    @classmethod
    def load(cls, root: Path, project: Path | None = None) -> MillState:
        """Raises CommandFailed when no mill runs in `root`, with what starts one (of `project`, where that is known)."""
        try:
            # The lock tells; the process id may have gone to somebody else since.
            if not FolderLock(root.resolve() / SERVERS).held():
                raise ValueError("nobody holds its servers")
            state = cls(**json.loads((root / "mill.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CommandFailed(
                f"no mill runs in {root}; start one with: millstream up{options(project, root.parent)}"
            ) from error
        return state


class Mill:
    """Starts everything, keeps the services running, stops everything. All files lie under `root`."""

    def __init__(
        self,
        *,
        project: Project,
        root: Path,
        fresh: bool,
        fixed_ports: bool,
        say: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
        mend_servers: bool = True,
    ) -> None:
        """Nothing is started yet. `fresh` forgets what an earlier run left in `root`; with `mend_servers` a server that
        ended is started again, as a service is."""
        self._project = project
        self._root = root.resolve()
        self._say = say
        self._environment = dict(environment or {})
        self._fresh = fresh
        self._fixed = fixed_ports
        self._mend_servers = mend_servers
        self.stack = EmbeddedStack(
            self._root / SERVERS, with_mlflow=True, progress=say, fresh=fresh, wait_for_mlflow=False
        )
        self.processes: dict[str, ManagedProcess] = {}
        self._urls: dict[str, str] = {}
        self.restarts: dict[str, int] = dict.fromkeys(SERVICES, 0)
        self._stopping = False
        self._written = False

    async def start(self) -> MillState:
        """Servers, topics, services; returns when every service is ready. Raises EmbeddedError, CommandFailed.

        MLflow may still import then (10 s): no service waits for it, and `supervise` sees it through.
        """
        self._urls = {name: f"http://127.0.0.1:{port}" for name, port in self._ports().items()}
        # The stack refuses a folder that another mill uses, so it comes before anything is removed.
        await asyncio.to_thread(self.stack.start)
        if self._fresh:
            for old in ("lake", "packages", "data", "logs", "cli"):
                shutil.rmtree(self._root / old, ignore_errors=True)
            (self._root / POSITION).unlink(missing_ok=True)
        await ensure_topics(self.stack.kafka.bootstrap, topics_of(self._project, partitions=1))
        self._say("starting the five services")
        for name in SERVICES:
            self.processes[name] = self._process(name)
            self.processes[name].launch()
        await asyncio.gather(*(asyncio.to_thread(self.processes[n].wait_ready) for n in SERVICES))
        state = self.state()
        (self._root / "mill.json").write_text(json.dumps(asdict(state), indent=2))
        self._written = True
        return state

    def state(self) -> MillState:
        return MillState(
            pid=os.getpid(),
            project=str(self._project.path.resolve()),
            kafka=self.stack.kafka.bootstrap,
            valkey=self.stack.valkey.url,
            mlflow=self.stack.mlflow.url if self.stack.mlflow else None,
            services=dict(self._urls),
            lake=str(self._root / "lake"),
            packages=str(self._root / "packages"),
            registry=str(self._root / "cli" / "registry.db"),
            logs=str(self._root / "logs"),
        )

    async def supervise(self) -> None:
        """Start a service again when it ended. Raises CommandFailed for one that will not stay, EmbeddedError for MLflow."""
        tracking = asyncio.ensure_future(asyncio.to_thread(self._wait_for_mlflow))
        for beat in itertools.count():
            await asyncio.sleep(0.25)
            if tracking.done():
                tracking.result()
            if beat % 4 == 0:  # a child lives for seconds, and takes its figures with it
                self.usage()
            for name, process in self.processes.items():
                if self._stopping or process.alive():
                    continue
                if process.returncode == BAD_SETTINGS:
                    raise CommandFailed(f"{name} refuses its settings or the project:\n{process.log_tail()}")
                self.restarts[name] += 1
                if self.restarts[name] > RESTARTS:
                    raise CommandFailed(f"{name} ended {RESTARTS} times; see {process.log}\n{process.log_tail()}")
                self._say(f"{name} ended with status {process.returncode}; starting it again")
                process.launch()
            for server in self.stack.processes() if self._mend_servers else ():
                if not self._stopping and not server.alive():
                    self._say(f"{server.name} ended with status {server.returncode}; starting it again")
                    server.launch()

    def usage(self) -> dict[str, Usage]:
        """Peak memory and CPU time of each process, by name, as far as it was looked at while it ran."""
        everyone = [*self.processes.values(), *self.stack.processes()]
        found = {process.name: process.usage() for process in everyone}
        return {name: usage for name, usage in found.items() if usage is not None}

    def stop(self) -> None:
        """Stop the services, then the servers. Safe to call twice and at any moment of the start."""
        self._stopping = True
        for process in self.processes.values():
            process.ask_to_end()
        for process in self.processes.values():
            process.terminate(grace=25)
        self.stack.stop()
        if self._written:  # else it is another mill's, which runs here
            (self._root / "mill.json").unlink(missing_ok=True)

    def _wait_for_mlflow(self) -> None:
        if self.stack.mlflow is not None:
            self.stack.mlflow.wait_ready()

    def _ports(self) -> dict[str, int]:
        """Raises PortTaken, and CommandFailed for a setting that names no port of its own."""
        if not self._fixed:
            return {name: claim(None, name) for name in SERVICES}
        ports: dict[str, int] = {}
        for name in SERVICES:
            variable = f"MILLSTREAM_PORT_{name.upper()}"
            said = os.environ.get(variable, str(PORTS[name]))
            if not said.isdecimal() or not 0 < int(said) < 65536 or int(said) in ports.values():
                raise CommandFailed(f"{variable} is {said!r}; write a port from 1 to 65535 that no other service has")
            ports[name] = claim(int(said), variable)
        return ports

    def _process(self, name: str) -> ManagedProcess:
        url = self._urls[name]
        return ManagedProcess(
            name,
            [sys.executable, "-m", f"millstream_{name}"],
            log=self._root / "logs" / f"{name}.log",
            env=self._settings(name, url),
            ready=lambda: _ready(url),
            ready_within=120,
        )

    def _settings(self, name: str, url: str) -> dict[str, str]:
        stack = self.stack
        return {
            "MILLSTREAM_KAFKA": stack.kafka.bootstrap,
            **KafkaSecurity.environment_of_none(),
            "MILLSTREAM_VALKEY": stack.valkey.url,
            "MILLSTREAM_MLFLOW": stack.mlflow.url if stack.mlflow else "",
            "MILLSTREAM_PROJECT": str(self._project.path.resolve()),
            "MILLSTREAM_LAKE": str(self._root / "lake"),
            "MILLSTREAM_PACKAGES": str(self._root / "packages"),
            "MILLSTREAM_DATA": str(self._root / "data" / name),
            "MILLSTREAM_PORT": url.rpartition(":")[2],
            "MILLSTREAM_INSTANCE": f"{name}-0",
            # The replay is trusted to say when an event became known; strangers are not.
            "MILLSTREAM_TRUST_KNOWN_AT": "true",
            "PYTHONUNBUFFERED": "1",
            **self._environment,
        }


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_for_exit(pid: int, within: float) -> bool:
    """Whether process `pid` ended within so many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
