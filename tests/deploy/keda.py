"""KEDA beside a control plane: operator, metrics adapter and webhooks as processes, with the rights of its own RBAC."""

from __future__ import annotations

from pathlib import Path

from millstream.testing.cache import cache_folder
from millstream.testing.ports import HOST, free_port
from millstream.testing.waiting import wait_until

from .control_plane import ControlPlane
from .kubectl import Kubectl, Said
from .plane_keys import text
from .plane_tools import SCALER

QUIET = 4.0
"""Seconds, of which KEDA takes one or two to change what it was just given."""
SERVICES = ("keda-operator", "keda-metrics-apiserver", "keda-admission-webhooks")


def install_keda(plane: ControlPlane) -> None:
    """Rights and the three processes, which end with the control plane. Raises ServerDidNotStart."""
    config = plane.manifests / "keda"
    plane.kubectl("create", "namespace", "keda")
    parts = ("service_account/service_account", "rbac/role", "rbac/role_binding", "metrics-server/role")
    for part in (*parts, "metrics-server/role_binding"):
        plane.kubectl("apply", "--server-side", "-f", config / f"{part}.yaml")
    adapter, webhooks = _processes(plane)
    authority = text(plane.authority.certificate)
    # Its Services would lead to pods; these lead to this machine. Endpoints cannot: the API refuses loopback there.
    plane.kubectl(
        "apply", "--server-side", "-f", "-", given=FRONT.format(adapter=adapter, webhooks=webhooks, ca=authority)
    )
    checks = (config / "webhooks" / "validation_webhooks.yaml").read_text()
    checks = checks.replace("  clientConfig:", f"  clientConfig:\n    caBundle: {authority}")
    checks = checks.replace("    service:\n", f"    service:\n      port: {webhooks}\n")
    # Upstream lets objects through when the webhook is away; here that would look like a valid one.
    checks = checks.replace("failurePolicy: Ignore", "failurePolicy: Fail")
    plane.kubectl("apply", "--server-side", "-f", "-", given=checks)
    wait_until(lambda: _answers(plane), within=60, what="the API of external metrics")


def settle(kubectl: Kubectl, kind: str, *names: str) -> None:
    """Until KEDA leaves them as they are: whenever one is changed, by itself too, it looks anew, and then it does not count the
    Jobs that it was just making, and takes lag that stands still for lag that moves."""
    for name in names:
        kubectl("wait", "--for=condition=Ready", "--timeout=60s", f"{kind}/{name}", within=90)
    fields = "jsonpath={.items[*].metadata.generation} {.items[*].metadata.finalizers}"
    seen = ""

    def quiet() -> bool:
        nonlocal seen
        before, seen = seen, kubectl("get", kind, "-o", fields)
        return before == seen

    wait_until(quiet, within=60, what="KEDA to leave them as they are", every=QUIET)


def _answers(plane: ControlPlane) -> bool:
    try:
        plane.kubectl("get", "--raw", "/apis/external.metrics.k8s.io/v1beta1")
    except Said:
        return False
    return True


def _processes(plane: ControlPlane) -> tuple[int, int]:
    """Ports of the adapter and of the webhooks."""
    hosts = tuple(f"{name}.keda.svc" for name in SERVICES)
    account = "system:serviceaccount:keda:keda-operator"
    groups = ("system:serviceaccounts", "system:serviceaccounts:keda")
    kubeconfig = plane.authority.kubeconfig(plane.server, "keda", account, *groups)
    folder = plane.folder / "keda"
    folder.mkdir()
    certificate, key = plane.authority.vouch("keda-tls", account, *groups, hosts=hosts)
    for name, file in (("ca.crt", plane.authority.certificate), ("tls.crt", certificate), ("tls.key", key)):
        (folder / name).write_bytes(file.read_bytes())
    env = {
        "KUBECONFIG": str(kubeconfig),
        "POD_NAMESPACE": "keda",
        "POD_NAME": "keda-here",
        "WATCH_NAMESPACE": "",
        "KEDA_CLUSTER_OBJECT_NAMESPACE": "keda",
    }
    grpc, metrics, probe = (f"{HOST}:{free_port()}" for _ in range(3))
    logs = ("--zap-log-level=info", "--zap-encoder=console", f"--cert-dir={folder}")
    plane.launch(
        *("keda-operator", _program("keda-operator"), *logs, f"--ca-dir={folder}", "--leader-elect=false"),
        # Rotation waits for a Secret to be mounted, which a kubelet would do.
        *("--enable-cert-rotation=false", f"--metrics-service-bind-address={grpc}"),
        *(f"--metrics-bind-address={metrics}", f"--health-probe-bind-address={probe}"),
        ready=f"http://{probe}/readyz",
        env=env,
    )
    adapter, webhooks = free_port(), free_port()
    plane.launch(
        *("keda-adapter", _program("keda-adapter"), *logs, f"--secure-port={adapter}", f"--bind-address={HOST}"),
        # It is an API server itself, and without these it looks for the token of a pod.
        *(f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}"),
        *(f"--lister-kubeconfig={kubeconfig}", f"--client-ca-file={folder / 'ca.crt'}", f"--port={free_port()}"),
        *(f"--tls-cert-file={folder / 'tls.crt'}", f"--tls-private-key-file={folder / 'tls.key'}"),
        f"--metrics-service-address={grpc}",
        ready=f"https://{HOST}:{adapter}/healthz",
        env=env,
    )
    probe, metrics = (f"{HOST}:{free_port()}" for _ in range(2))
    plane.launch(
        *("keda-webhooks", _program("keda-webhooks"), *logs, f"--port={webhooks}"),
        *(f"--metrics-bind-address={metrics}", f"--health-probe-bind-address={probe}"),
        ready=f"http://{probe}/readyz",
        env=env,
    )
    return adapter, webhooks


def _program(name: str) -> Path:
    return SCALER.path(cache_folder(), name)


FRONT = """
apiVersion: v1
kind: Service
metadata: {{name: keda-metrics-apiserver, namespace: keda}}
spec: {{type: ExternalName, externalName: localhost, ports: [{{name: https, port: {adapter}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: keda-admission-webhooks, namespace: keda}}
spec: {{type: ExternalName, externalName: localhost, ports: [{{name: https, port: {webhooks}}}]}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1beta1.external.metrics.k8s.io}}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  caBundle: {ca}
  service: {{name: keda-metrics-apiserver, namespace: keda, port: {adapter}}}
"""
