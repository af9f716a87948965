"""The few calls of Kubernetes' API that the trainer needs, each with what its refusals mean. They block."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from millstream.errors import BadSetup, RetryLater
from millstream.project.resource import GROUP, PLURAL, VERSION
from millstream_trainer.adapters.job_kinds import JOB, Kind
from millstream_trainer.domain.job import Job, Pod
from millstream_trainer.errors import RunFailed

GROUPS = {
    "pods": "/api/v1",
    "configmaps": "/api/v1",
    "deployments": "/apis/apps/v1",
    PLURAL: f"/apis/{GROUP}/{VERSION}",
}
METHODS = {"create": "POST", "delete": "DELETE", "patch": "PATCH"}
NOTHING: Mapping[str, str] = MappingProxyType({})

MERGE = "application/merge-patch+json"

CONNECT, READ = 5.0, 15.0
"""Seconds until an API server that does not answer counts as away."""

SAYS_SO = frozenset((400, 401, 403, 404, 405, 413, 415, 422))
"""Statuses that the same request would get again."""


class Status(msgspec.Struct, frozen=True):
    """The body of every refusal."""

    reason: str = ""
    message: str = ""


class Jobs(msgspec.Struct, frozen=True):
    items: list[Job] = []


class Pods(msgspec.Struct, frozen=True):
    items: list[Pod] = []


class KubernetesApi:
    """Of one namespace, and of one kind of Jobs. Every call raises RetryLater where the API server is away, and RunFailed where
    it says no."""

    def __init__(self, namespace: str, kubeconfig: Path | None, kind: Kind = JOB) -> None:
        """Asks nobody yet. Raises BadSetup."""
        self.namespace = namespace
        self._kind = kind
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
                f"MILLSTREAM_EXECUTOR is kubernetes, or MILLSTREAM_LOOP_CONFIGS is set, and {where}: {error}. In a cluster "
                "the pod wants automountServiceAccountToken: true, elsewhere MILLSTREAM_KUBECONFIG names a file"
            ) from error
        self._client = client.ApiClient(configuration)
        self._authority = (
            "kube-root-ca.crt of the pod's namespace"
            if kubeconfig is None
            else f"certificate-authority of {kubeconfig}"
        )
        self._watches: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()
        self._closed = False

    def create(self, body: Mapping[str, Any]) -> bool:
        """False: a Job of this name is there already, which is as good."""
        try:
            self._ask("create", "jobs", body=body)
        except _There:
            return False
        return True

    def job(self, name: str) -> Job | None:
        """None: there is none."""
        try:
            return msgspec.json.decode(self._ask("get", "jobs", name), type=Job)
        except Missing:
            return None

    def ended(self) -> list[Job]:
        """Those of runs that have come to their end."""
        raw = self._ask("list", "jobs", query={"labelSelector": "millstream/run"})
        return [job for job in msgspec.json.decode(raw, type=Jobs).items if job.ended]

    def pods(self, name: str) -> list[Pod]:
        """Of the Job, oldest first."""
        raw = self._ask("list", "pods", query={"labelSelector": f"{self._kind.label}={name}"})
        found = msgspec.json.decode(raw, type=Pods).items
        return sorted(found, key=lambda pod: (str(pod.metadata.creationTimestamp), pod.metadata.name))

    def wait(self, job: Job, seconds: int) -> None:
        """Until the Job changes or goes, for `seconds` at most."""
        only = {"fieldSelector": f"metadata.name={job.metadata.name}"}
        self._watch("jobs", job.metadata.resourceVersion, seconds, only)

    def _watch(self, resource: str, since: str, seconds: int, only: Mapping[str, str] = NOTHING) -> None:
        """Until something changes after the version `since`, for `seconds` at most."""
        query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": str(seconds), **only}
        with self._open("watch", resource, query=query, patience=seconds + READ) as response:
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
        with suppress(Missing):
            self._ask("delete", "jobs", name, query={"propagationPolicy": "Background"})

    def close(self) -> None:
        """Ends the waits that are under way; afterwards nothing may be asked."""
        with self._lock:
            self._closed = True
            for response in self._watches:
                response.shutdown()

    def disconnect(self) -> None:
        """Hang up."""
        hang_up(self._client)

    def _called(self, resource: str) -> str:
        """`jobs` are whatever stands for one here."""
        return self._kind.resource if resource == "jobs" else resource

    def _group(self, resource: str) -> str:
        return self._kind.path if resource == "jobs" else GROUPS[resource]

    def _ask(
        self, verb: str, resource: str, name: str = "", *, query: Mapping[str, str] = NOTHING, body: Any = None
    ) -> bytes:
        with self._open(verb, resource, name, query=query, body=body) as response:
            return response.data

    @contextmanager
    def _open(
        self,
        verb: str,
        resource: str,
        name: str = "",
        *,
        query: Mapping[str, str] = NOTHING,
        body: Any = None,
        patience: float = READ,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer, whose body is not read yet."""
        # Not by the client's models: they refuse what the API takes (a number as a quantity), and what is newer than they.
        path = f"{self._group(resource)}/namespaces/{self.namespace}/{self._called(resource)}"
        request = self._client.param_serialize(
            method=METHODS.get(verb, "GET"),
            resource_path=f"{path}/{name}" if name else path,
            query_params=list(query.items()),
            header_params={
                "Accept": "application/json",
                "Content-Type": MERGE if verb == "patch" else "application/json",
            },
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._client.call_api(*request, _request_timeout=(CONNECT, patience)).response
            try:
                if not 200 <= response.status < 300:
                    raise self._meaning(response.status, response.data, verb, resource)
                yield response
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ApiException) as error:
            if distrust := _distrust(error):
                raise RetryLater(
                    f"the API server of Kubernetes answers, and its certificate is not trusted ({distrust}): "
                    f"{self._authority} has to be the authority of this cluster"
                ) from error
            raise RetryLater(f"the API server of Kubernetes is away: {error}") from error

    def _meaning(self, status: int, body: bytes, verb: str, resource: str) -> Exception:
        try:
            said = msgspec.json.decode(body, type=Status)
        except msgspec.DecodeError:  # of a proxy in between
            said = Status(message=f"HTTP status {status}")
        if said.reason == "AlreadyExists":
            return _There()
        if status == 404 and verb != "create":
            return Missing()
        called = self._called(resource)
        what = f"Kubernetes refused to {verb} {called} in namespace {self.namespace}: {said.message}"
        if status == 403 and " cannot " in said.message:
            group = "/".join(self._group(resource).split("/")[2:-1])  # /apis/batch/v1, and nothing of /api/v1
            rule = f'apiGroups: ["{group}"], resources: ["{called}"], verbs: ["{verb}"]'
            return RunFailed(f"{what}; the Role of the trainer's ServiceAccount misses {{{rule}}}")
        if status == 404 and said.reason != "NotFound":
            wanted = f"{self._kind.kind} of {self._kind.api}"
            return RunFailed(f"{what}; the cluster does not know the kind {wanted}: install what brings it")
        if status == 404:
            return RunFailed(f"{what}; make the namespace, or name another one in the template of the Job")
        return RunFailed(what) if status in SAYS_SO else RetryLater(what)


def hang_up(api: client.ApiClient) -> None:
    """Close its connections now. `clear` leaves that to the garbage collector, and errors keep what they passed."""
    pools = api.rest_client.pool_manager.pools
    for key in list(pools.keys()):
        pools[key].close()
    pools.clear()


def _distrust(error: BaseException | None) -> str:
    """Why TLS does not trust who answers; empty where the error is another. The client keeps only its text."""
    while error is not None:
        for one in (error, *error.args):
            if isinstance(one, ssl.SSLCertVerificationError):
                return one.verify_message
        error = error.__cause__ or error.__context__
    return ""


class _There(Exception):
    pass


class Missing(Exception):
    """There is no such object, or no such kind."""
