"""The few calls of Kubernetes' API that training needs, each with what its refusals mean for a run. They block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from millstream.errors import BadSetup, RetryLater
from millstream_trainer.domain.job import Job, Pod
from millstream_trainer.errors import RunFailed

T = TypeVar("T")

CONNECT, READ = 5.0, 15.0
"""Seconds until an API server that does not answer counts as away."""

SAYS_SO = frozenset((400, 401, 403, 404, 405, 413, 415, 422))
"""Statuses that the same request would get again."""


class Status(msgspec.Struct, frozen=True):
    """The body of every refusal."""

    reason: str = ""
    message: str = ""


class Pods(msgspec.Struct, frozen=True):
    items: list[Pod] = []


class KubernetesApi:
    """Of one namespace. Every call raises RetryLater where the API server is away, and RunFailed where it says no."""

    def __init__(self, namespace: str, kubeconfig: Path | None) -> None:
        """Asks nobody yet. Raises BadSetup."""
        self.namespace = namespace
        configuration = client.Configuration()
        configuration.retries = False  # who waits is the run, and it says what for
        try:
            if kubeconfig is None:
                config.load_incluster_config(client_configuration=configuration)
            else:
                config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        except config.ConfigException as error:
            where = "the pod has no token of its ServiceAccount" if kubeconfig is None else str(kubeconfig)
            raise BadSetup(
                f"MILLSTREAM_EXECUTOR is kubernetes, and {where}: {error}. In a cluster the pod wants "
                "automountServiceAccountToken: true, elsewhere MILLSTREAM_KUBECONFIG names a file"
            ) from error
        self._client = client.ApiClient(configuration)
        self._jobs = client.BatchV1Api(self._client)
        self._pods = client.CoreV1Api(self._client)
        self._watches: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()
        self._closed = False

    def create(self, body: Mapping[str, Any]) -> bool:
        """False: a Job of this name is there already, which is as good."""
        try:
            with self._means("create", "jobs"):
                self._ask(self._jobs.create_namespaced_job, body=body)
        except _There:
            return False
        return True

    def job(self, name: str) -> Job | None:
        """None: there is none."""
        try:
            with self._means("get", "jobs"):
                return msgspec.json.decode(self._ask(self._jobs.read_namespaced_job, name=name), type=Job)
        except _Missing:
            return None

    def pods(self, name: str) -> list[Pod]:
        """Of the Job, oldest first."""
        with self._means("list", "pods"):
            raw = self._ask(self._pods.list_namespaced_pod, label_selector=f"batch.kubernetes.io/job-name={name}")
        found = msgspec.json.decode(raw, type=Pods).items
        return sorted(found, key=lambda pod: (str(pod.metadata.creationTimestamp), pod.metadata.name))

    def wait(self, job: Job, seconds: int) -> None:
        """Until the Job changes or goes, for `seconds` at most."""
        with self._means("watch", "jobs"):
            response = self._jobs.list_namespaced_job(
                self.namespace,
                watch=True,
                field_selector=f"metadata.name={job.metadata.name}",
                resource_version=job.metadata.resourceVersion,
                timeout_seconds=seconds,
                _preload_content=False,
                _request_timeout=(CONNECT, seconds + READ),
            )
            with self._lock:
                self._watches.add(response)
                closed = self._closed
            try:
                # Whatever comes first: a change, the end of the time, or that our version is too old to begin at (410).
                if not closed:
                    next(iter(response.stream(1024)), None)
            finally:
                with self._lock:
                    self._watches.discard(response)
                response.close()

    def delete(self, name: str) -> None:
        """With its pods. One that is gone is no error."""
        try:
            with self._means("delete", "jobs"):
                self._ask(self._jobs.delete_namespaced_job, name=name, propagation_policy="Background")
        except _Missing:
            pass

    def close(self) -> None:
        """Ends the waits that are under way; afterwards nothing may be asked."""
        with self._lock:
            self._closed = True
            for response in self._watches:
                response.shutdown()

    def disconnect(self) -> None:
        """Hang up."""
        hang_up(self._client)

    def _ask(self, call: Callable[..., Any], **arguments: Any) -> bytes:
        response = call(namespace=self.namespace, _preload_content=False, _request_timeout=(CONNECT, READ), **arguments)
        try:
            raw: bytes = response.data
            return raw
        finally:
            response.release_conn()

    @contextmanager
    def _means(self, verb: str, resource: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise self._meaning(error, verb, resource) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RetryLater(f"the API server of Kubernetes is away: {error}") from error

    def _meaning(self, error: ApiException, verb: str, resource: str) -> Exception:
        try:
            said = msgspec.json.decode(error.body or b"{}", type=Status)
        except msgspec.DecodeError:  # of a proxy in between
            said = Status(message=str(error.reason))
        if said.reason == "AlreadyExists":
            return _There()
        if error.status == 404 and verb != "create":
            return _Missing()
        what = f"Kubernetes refused to {verb} {resource} in namespace {self.namespace}: {said.message or error.reason}"
        if error.status == 403 and " cannot " in said.message:
            group = "batch" if resource == "jobs" else ""
            rule = f'apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]'
            return RunFailed(f"{what}; the Role of the trainer's ServiceAccount misses {{{rule}}}")
        if error.status == 404:
            return RunFailed(f"{what}; make the namespace, or name another one in the template of the Job")
        return RunFailed(what) if error.status in SAYS_SO else RetryLater(what)


def hang_up(api: client.ApiClient) -> None:
    """Close its connections now. `clear` leaves that to the garbage collector, and errors keep what they passed."""
    pools = api.rest_client.pool_manager.pools
    for key in list(pools.keys()):
        pools[key].close()
    pools.clear()


class _There(Exception):
    pass


class _Missing(Exception):
    pass
