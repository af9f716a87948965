"""The umbrella chart on the node: five services in pods with the small project of the flights, and what one may ask."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millstream.project import Project
from millstream.testing.waiting import wait_until

from .charts import CHARTS, ROOT, SERVICES
from .images import TAG
from .kubectl import Helm, Kubectl, Said
from .node_servers import Servers

sys.path += [str(ROOT / "deploy"), str(ROOT / "tests" / "e2e")]

from project_values import project_files
from small_mill import small_project

RELEASE = "mill"
CLAIM = "mill-shared"
READY_WITHIN = 300
USER = 10001
SMALL = {"cpu": "50m", "memory": "128Mi"}
"""What a pod asks for: the node has the cores of this machine, and they are not for us alone. Limits are the chart's own."""


@dataclass(frozen=True, kw_only=True)
class Mill:
    """One release."""

    project: Project
    servers: Servers
    kubectl: Kubectl
    helm: Helm
    folder: Path
    """Of values, and of what the pods share."""

    @property
    def lake(self) -> Path:
        return self.folder / "shared" / "lake"

    @property
    def packages(self) -> Path:
        return self.folder / "shared" / "packages"

    def address(self, service: str) -> str:
        """Of its Service, from this machine."""
        found = self.kubectl.get("service", f"{RELEASE}-{service}")["spec"]
        return f"http://{found['clusterIP']}"

    def upgrade(self, *sets: str, wait: int = 180) -> str:
        """As `helm upgrade --wait` with the values so far. Raises Said."""
        return self.helm(
            *("upgrade", RELEASE, CHARTS / "millstream", "--reuse-values", "--wait", "--timeout", f"{wait}s"),
            *(part for one in sets for part in ("--set", one)),
            within=wait + 60,
        )

    def rollback(self) -> None:
        """To the revision before."""
        self.helm("rollback", RELEASE, "--wait", "--timeout", f"{READY_WITHIN}s", within=READY_WITHIN + 60)

    def pods(self, service: str) -> list[Mapping[str, Any]]:
        """Those that are not ending."""
        found = self.kubectl.get("pods", "-l", f"app.kubernetes.io/component={service}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def restarts(self) -> dict[str, int]:
        """Of each pod's container."""
        return {
            pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
            for service in SERVICES
            for pod in self.pods(service)
        }

    def ready(self, service: str) -> bool:
        found = self.pods(service)
        return bool(found) and all(is_ready(pod) for pod in found)

    def wait_ready(self, *names: str) -> None:
        for service in names or SERVICES:
            wait_until(lambda: self.ready(service), within=READY_WITHIN, what=f"pods of {service}", every=1)  # noqa: B023

    def events(self) -> str:
        """What the cluster says, a line each."""
        return "\n".join(f"{one['reason']}: {one.get('message', '')}" for one in self.kubectl.get("events")["items"])

    def told(self, pod: str) -> str:
        """What a person finds who asks why a pod is not ready: events, the container's state and what it printed."""
        log = ""
        with suppress(Said):  # it never began
            log = self.kubectl("logs", pod)
        return "\n".join([self.events(), json.dumps(self.kubectl.get("pod", pod)["status"]), log])


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def values(project: Project, servers: Servers) -> dict[str, Any]:
    """Of the umbrella."""
    small = {"resources": {"requests": SMALL}}
    # The replay and our callers say when something became known, and nobody else is on the line.
    told = small | {"settings": {"trust_known_at": True}}
    return {
        "global": {
            "project": {"files": project_files(project.path)},
            "kafka": {"bootstrap": servers.kafka.pods},
            "valkey": {"url": servers.valkey.pods},
            "shared": {"claim": CLAIM},
            "image": {"tag": TAG},
        },
        "ingest": told | {"auth": "off"},
        "features": small,
        "serving": told,
        "drift": small,
        "trainer": small | {"training": {"executor": "kubernetes", "policy": {"enabled": True}, **small}},
    }


@contextmanager
def mill(folder: Path, kubectl: Kubectl, helm: Helm, servers: Servers) -> Iterator[Mill]:
    """Installed, and every pod ready. `kubectl` and `helm` are of one namespace."""
    made = Mill(
        # A Kafka that has to share two cores takes longer than a second at times, and the loop would refuse to answer: what is
        # tried here is what becomes of calls when pods come and go. Every answer is on record all the same.
        project=small_project(folder / "project", partitions=2, unlogged="answer"),
        servers=servers,
        kubectl=kubectl,
        helm=helm,
        folder=folder,
    )
    # A folder of the node comes as it is: fsGroup changes nothing in it.
    for path in (folder / "shared", made.lake, made.packages):
        path.mkdir()
        path.chmod(0o770)
        os.chown(path, USER, USER)
    kubectl("apply", "-f", "-", given=SHARED.format(folder=folder / "shared", namespace=kubectl.namespace, claim=CLAIM))
    file = folder / "values.json"
    file.write_text(json.dumps(values(made.project, servers)))
    helm("install", RELEASE, CHARTS / "millstream", "-f", file)
    made.wait_ready()
    yield made


SHARED = """
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}-shared}}
spec:
  accessModes: [ReadWriteMany]
  capacity: {{storage: 20Gi}}
  storageClassName: ""
  hostPath: {{path: {folder}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {claim}}}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: ""
  volumeName: {namespace}-shared
  resources: {{requests: {{storage: 20Gi}}}}
"""
