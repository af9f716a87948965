"""A cluster as the tests of training Jobs use it: a kubeconfig for the trainer, and what controllers and kubelets would do.

Everything goes through the API, so that a real kube-apiserver without controllers does as well as ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config

from millstream_trainer.adapters.kubernetes_api import hang_up

from .kube_server import KubeServer

REAL = "MILLSTREAM_TEST_KUBECONFIG"
"""Names a kubeconfig whose user may do everything. Of a control plane without Job controller: here the tests are it."""


class Cluster:
    """One namespace of it, new for each test."""

    def __init__(self, kubeconfig: Path, namespace: str, server: KubeServer | None) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.server = server
        """None: it is a real one, which can neither be away nor refuse its administrator."""
        configuration = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        self._client = client.ApiClient(configuration)
        self._batch, self._core = client.BatchV1Api(self._client), client.CoreV1Api(self._client)

    def close(self) -> None:
        hang_up(self._client)

    def jobs(self) -> list[Any]:
        found: list[Any] = self._batch.list_namespaced_job(self.namespace).items
        return found

    def job(self) -> Any:
        (found,) = self.jobs()
        return found

    def deleted(self) -> None:
        """A person deletes the one Job."""
        self._batch.delete_namespaced_job(self.job().metadata.name, self.namespace, propagation_policy="Background")

    def begins(self) -> str:
        """The Job controller and the kubelet: the pod of the one Job runs. Its name."""
        name = self.job().metadata.name
        self._status(name, active=1, ready=1)
        pod = self._pod(name)
        self._pod_status(pod, {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]})
        return pod

    def pends(self, message: str) -> None:
        """The scheduler finds no node for the pod of the one Job."""
        name = self.job().metadata.name
        self._status(name, active=1, ready=0)
        refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._pod_status(self._pod(name), {"phase": "Pending", "conditions": [refused]})

    def loses_its_pod(self) -> None:
        """The Job controller takes the pod of the one Job away, as it does at the deadline."""
        for pod in self._core.list_namespaced_pod(self.namespace).items:
            self._core.delete_namespaced_pod(pod.metadata.name, self.namespace, grace_period_seconds=0)

    def cannot_pull(self, message: str) -> None:
        """The kubelet cannot pull the image of the one Job's pod."""
        name = self.job().metadata.name
        self._status(name, active=1, ready=0)
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
        self._pod_status(self._pod(name), {"phase": "Pending", "containerStatuses": [_container(waiting)]})

    def completes(self) -> None:
        """The pod ended with 0, and the Job is complete."""
        done = [_condition("SuccessCriteriaMet", "CompletionsReached"), _condition("Complete", "CompletionsReached")]
        name = self.job().metadata.name
        self._status(name, completionTime=_now(), active=0, ready=0, succeeded=1, conditions=done)

    def fails(self, reason: str, message: str, code: int | None = None, said: str = "Error") -> None:
        """The Job controller gives up. `code`: how the container ended."""
        name = self.job().metadata.name
        for pod in self._core.list_namespaced_pod(self.namespace).items if code is not None else []:
            ended = {"terminated": {"exitCode": code, "reason": said}}
            self._pod_status(pod.metadata.name, {"phase": "Failed", "containerStatuses": [_container(ended)]})
        over = [_condition("FailureTarget", reason, message), _condition("Failed", reason, message)]
        self._status(name, active=0, ready=0, failed=1, conditions=over)

    async def runs_for_real(self) -> None:
        """The kubelet runs the one Job's container here, and the Job ends as its podFailurePolicy says."""
        self.begins()
        job, code = self.job(), await self.container_ends()
        if code == 0:
            await asyncio.to_thread(self.completes)
            return
        (rule,) = (one for one in job.spec.pod_failure_policy.rules if one.on_exit_codes)
        assert code in rule.on_exit_codes.values, f"the pod ended with {code}, and would be tried again"
        said = f"Container training for pod {self.namespace}/x failed with exit code {code} matching FailJob rule at index 1"
        await asyncio.to_thread(self.fails, "PodFailurePolicy", said, code)

    async def container_ends(self) -> int:
        """By which code the one Job's container ends, run here with its command, arguments and environment."""
        (container,) = self.job().spec.template.spec.containers
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *container.command[1:], *container.args),
            env=os.environ | {one.name: one.value for one in container.env},
        )
        return await process.wait()

    def _pod(self, job: str) -> str:
        spec = {"containers": [{"name": "training", "image": "x"}], "restartPolicy": "Never"}
        metadata = {"name": f"{job}-abcde", "labels": {"batch.kubernetes.io/job-name": job}}
        self._core.create_namespaced_pod(self.namespace, {"metadata": metadata, "spec": spec})
        return metadata["name"]  # type: ignore[return-value]

    def _status(self, name: str, **status: Any) -> None:
        if self._batch.read_namespaced_job(name, self.namespace).status.start_time is None:
            status["startTime"] = _now()  # once: the API server lets nobody change it
        self._batch.patch_namespaced_job_status(name, self.namespace, {"status": status})

    def _pod_status(self, name: str, status: Mapping[str, Any]) -> None:
        self._core.patch_namespaced_pod_status(name, self.namespace, {"status": status})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(type: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": type, "status": "True", "reason": reason, "message": message, "lastTransitionTime": _now()}


def _container(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "training", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}


@contextmanager
def new_cluster(folder: Path) -> Iterator[Cluster]:
    """A namespace in ours, or in the real one that the environment names."""
    if real := os.environ.get(REAL):
        namespace = f"training-{uuid.uuid4().hex[:8]}"
        cluster = Cluster(Path(real), namespace, None)
        core = cluster._core
        core.create_namespace({"metadata": {"name": namespace}})
        with suppress(client.exceptions.ApiException):  # pods want it, and where there is a controller it made it
            core.create_namespaced_service_account(namespace, {"metadata": {"name": "default"}})
        try:
            yield cluster
        finally:
            core.delete_namespace(namespace)
            cluster.close()
        return
    server = KubeServer("training")
    kubeconfig = write_kubeconfig(folder / "kubeconfig", server.url)
    cluster = Cluster(kubeconfig, "training", server)
    try:
        yield cluster
    finally:
        cluster.close()
        server.stop()


def write_kubeconfig(file: Path, server: str, **more: str) -> Path:
    """For who has the token of our server; `more` of how it is reached."""
    named = {"name": "it", "context": {"cluster": "it", "user": "it"}}
    reached = {"name": "it", "cluster": {"server": server, **more}}
    user = {"name": "it", "user": {"token": "the-token"}}
    said = {"apiVersion": "v1", "kind": "Config", "current-context": "it", "contexts": [named]}
    file.write_text(json.dumps(said | {"clusters": [reached], "users": [user]}))
    return file
