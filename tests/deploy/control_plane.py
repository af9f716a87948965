"""A Kubernetes control plane on loopback: etcd, API server, controllers, scheduler, and nodes that kwok plays.

Real: admission with CRDs, CEL and Pod Security, RBAC, every controller, the scheduler. Not: there is no kubelet, so no
container starts, no probe asks and no image is pulled; a pod that is ready here says nothing about the program in it.

python -m tests.deploy.control_plane [--api-only] COMMAND

runs COMMAND with MILLSTREAM_TEST_KUBECONFIG naming a control plane that ends with it; --api-only: without controllers.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from millstream.testing.cache import cache_folder
from millstream.testing.ports import HOST, free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.waiting import wait_until

from . import plane_tools
from .kubectl import Kubectl, Said
from .plane_keys import Authority, account_key
from .plane_tools import ETCD, KWOK

READY_WITHIN = 90.0
"""Five to fifteen seconds for all of it on two free cores."""
NODES = ("node-a", "node-b")
SERVICES = "10.96.0.0/16"
"""Addresses of Services; the first is the API server's."""
FIRST_SERVICE = "10.96.0.1"
STAGES = ("node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease")
STAGES = (*STAGES, "pod/fast/pod-ready", "pod/fast/pod-delete")
HPA_EVERY = "3s"
"""How often an HPA looks; 15 s by default."""


class ControlPlane:
    """One control plane with its data under `folder`."""

    address = HOST
    """Where the API server listens."""

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        """Nothing is started yet."""
        self.folder = folder
        self._cache = cache or cache_folder()
        self.manifests = plane_tools.manifests(self._cache)
        self.server = f"https://{self.address}:{free_port()}"
        self.authority = Authority(folder / "keys", "authority")
        self.kubeconfig = self.authority.kubeconfig(self.server, "admin", "millstream-admin", "system:masters")
        self.kubectl = Kubectl(program=self._program("kubectl"), kubeconfig=self.kubeconfig)
        self._trust = ssl.create_default_context(cafile=str(self.authority.certificate))
        self.processes: list[ManagedProcess] = []

    def start(self, *, api_only: bool = False) -> None:
        """Until nodes are ready and accounts are made; `api_only`, until the API answers. Raises ServerDidNotStart."""
        etcd = self._etcd()
        self._api_server(etcd)
        if not api_only:
            self._controllers()
            self._nodes()

    def stop(self) -> None:
        """The last that came goes first. Twice is safe."""
        for process in reversed(self.processes):
            process.terminate(grace=10)

    @contextmanager
    def running(self, *, api_only: bool = False) -> Iterator[ControlPlane]:
        """Started inside, stopped after."""
        try:
            self.start(api_only=api_only)
            yield self
        finally:
            self.stop()

    def install_crds(self) -> None:
        """Ours, and those of KEDA, Prometheus operator, Gateway API, Istio, External Secrets, VPA, Kubeflow, Ray and Argo: the
        charts have values for them."""
        self.kubectl("apply", "--server-side", "-f", Path(__file__).parents[2] / "deploy" / "crds")
        # By the server: some are larger than what kubectl may note of them in an annotation.
        self.kubectl("apply", "--server-side", "-f", self.manifests / "crds", within=240)
        # By its kustomization, which adds to them.
        scalers = self.kubectl("kustomize", self.manifests / "keda" / "crd")
        self.kubectl("apply", "--server-side", "-f", "-", given=scalers, within=120)
        self.kubectl("wait", "--for=condition=Established", "--timeout=100s", "crd", "--all", within=120)

    def namespace(self, name: str) -> Kubectl:
        """Where Pod Security refuses what is not `restricted`; with its default account."""
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        inside = self.kubectl.within(name)
        wait_until(lambda: there(inside, "serviceaccount/default"), within=30, what=f"the default account of {name}")
        return inside

    def asks(self, url: str) -> bool:
        """Whether it answers 200."""
        trust = self._trust if url.startswith("https") else None
        try:
            with urllib.request.urlopen(url, timeout=5, context=trust) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def launch(
        self,
        name: str,
        program: Path,
        *arguments: str,
        ready: str | Callable[[], bool],
        env: dict[str, str] | None = None,
    ) -> None:
        """A process of this control plane; `ready` says so, or is the URL that does. Raises ServerDidNotStart."""
        known = ready if callable(ready) else lambda: self.asks(ready)
        process = ManagedProcess(
            name,
            [program, *arguments],
            log=self.folder / "logs" / f"{name}.log",
            env=env,
            cwd=self.folder,
            ready=known,
            ready_within=READY_WITHIN,
        )
        self.processes.append(process)
        process.start()

    def _program(self, name: str) -> Path:
        return next(group for group in plane_tools.ALL if name in group.packages).path(self._cache, name)

    def _etcd(self) -> str:
        clients, peers = (f"http://{HOST}:{free_port()}" for _ in range(2))
        # Its data is thrown away: on a busy disk each fsync would make leases expire.
        self.launch(
            *("etcd", ETCD.path(self._cache, "etcd"), "--name=plane", f"--data-dir={self.folder / 'etcd'}"),
            *("--unsafe-no-fsync", "--log-level=warn", f"--initial-cluster=plane={peers}"),
            *(f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"),
            *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
            ready=f"{clients}/health",
        )
        return clients

    def _api_server(self, etcd: str) -> None:
        keys = self.folder / "keys"
        # Who holds a certificate of the front proxy's authority may claim any name: it is not the clients'.
        front = Authority(keys, "front-authority")
        proxy, proxy_key = front.vouch("front-proxy", "front-proxy-client")
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        hosts = (*names, self.address, FIRST_SERVICE)
        certificate, key = self.authority.vouch("kube-apiserver", "kube-apiserver", hosts=hosts)
        self._account_key, public = account_key(keys)
        self.launch(
            *("kube-apiserver", self._program("kube-apiserver"), f"--etcd-servers={etcd}"),
            *(f"--bind-address={self.address}", f"--advertise-address={self.address}"),
            *(f"--secure-port={self.server.rpartition(':')[2]}", f"--service-cluster-ip-range={SERVICES}"),
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            *(f"--client-ca-file={self.authority.certificate}", *self._for_nodes()),
            *(f"--service-account-key-file={public}", f"--service-account-signing-key-file={self._account_key}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            # For KEDA's adapter, which answers as an API of its own behind this one.
            *(
                f"--requestheader-client-ca-file={front.certificate}",
                "--requestheader-allowed-names=front-proxy-client",
            ),
            *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            *(f"--proxy-client-cert-file={proxy}", f"--proxy-client-key-file={proxy_key}", "--profiling=false"),
            ready=f"{self.server}/readyz",
        )

    def _for_nodes(self) -> tuple[str, ...]:
        """What the API server is told because of them."""
        # Loopback has no default route, and Endpoints may not name it.
        return ("--endpoint-reconciler-type=none", "--authorization-mode=RBAC")

    def _controllers(self) -> None:
        keys = self.folder / "keys"
        for name, own in (
            (
                "kube-controller-manager",
                (
                    "--use-service-account-credentials=true",
                    f"--service-account-private-key-file={self._account_key}",
                    f"--root-ca-file={self.authority.certificate}",
                    f"--horizontal-pod-autoscaler-sync-period={HPA_EVERY}",
                    # Its default is a folder of the whole machine.
                    f"--flex-volume-plugin-dir={self.folder / 'volumes'}",
                ),
            ),
            ("kube-scheduler", ()),
        ):
            kubeconfig = self.authority.kubeconfig(self.server, name, f"system:{name}")
            address = f"https://{HOST}:{free_port()}"
            self.launch(
                *(name, self._program(name), f"--kubeconfig={kubeconfig}", "--leader-elect=false"),
                *(f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}"),
                *(f"--bind-address={HOST}", f"--secure-port={address.rpartition(':')[2]}"),
                *(f"--tls-cert-file={keys / name}.crt", f"--tls-private-key-file={keys / name}.key", *own),
                ready=f"{address}/healthz",
            )

    def _nodes(self) -> None:
        config = self.folder / "kwok.yaml"
        stages = [(self.manifests / "kwok" / f"{stage}.yaml").read_text() for stage in STAGES]
        stages.append((Path(__file__).parent / "kwok-stages.yaml").read_text())
        config.write_text("\n---\n".join(stages))
        address = f"{HOST}:{free_port()}"
        self.launch(
            *("kwok", KWOK.path(self._cache, "kwok"), f"--kubeconfig={self.kubeconfig}", f"--config={config}"),
            *("--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"),
            *("--node-lease-duration-seconds=40", "--cidr=10.244.0.0/16", f"--server-address={address}"),
            ready=f"http://{address}/healthz",
        )
        for zone, name in enumerate(NODES):
            self.kubectl("apply", "--server-side", "-f", "-", given=NODE.format(name=name, zone=zone))
        self.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "node", "--all", within=90)
        inside = self.kubectl.within("default")
        wait_until(lambda: there(inside, "serviceaccount/default"), within=60, what="the first account")


NODE = """
apiVersion: v1
kind: Node
metadata:
  name: {name}
  annotations: {{kwok.x-k8s.io/node: fake}}
  labels:
    kubernetes.io/os: linux
    kubernetes.io/arch: amd64
    kubernetes.io/hostname: {name}
    topology.kubernetes.io/zone: zone-{zone}
status:
  allocatable: {{cpu: "32", memory: 128Gi, pods: "200", ephemeral-storage: 1Ti}}
  capacity: {{cpu: "32", memory: 128Gi, pods: "200", ephemeral-storage: 1Ti}}
"""


def there(kubectl: Kubectl, what: str) -> bool:
    """Whether the object is."""
    try:
        return bool(kubectl("get", what, "-o", "name", "--ignore-not-found").strip())
    except Said:
        return False


def main(command: list[str]) -> int:
    if lacking := plane_tools.missing(cache_folder(), *plane_tools.PLANE):
        print(f"millstream: {lacking[0]} is not there; run: python -m tests.deploy.plane_tools", file=sys.stderr)
        return 1
    api_only = command[:1] == ["--api-only"]
    folder = tempfile.TemporaryDirectory(prefix="millstream-plane-")
    with folder as here, ControlPlane(Path(here)).running(api_only=api_only) as plane:
        plane.install_crds()
        known = os.environ | {"MILLSTREAM_TEST_KUBECONFIG": str(plane.kubeconfig)}
        return subprocess.run(command[api_only:], env=known, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
