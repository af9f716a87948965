"""A real Kubernetes node on this machine, beside a control plane: kubelet, containerd, kube-proxy, CoreDNS, and our images.

Real: containers, probes, Services, DNS, Secrets and folders mounted, limits, Jobs. Not: there is one node, so nothing moves to
another; NetworkPolicy is taken and not enforced; no storage provisioner, no load balancer, no metrics-server; limits are those
of the machine's cgroups (seen with version 1).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from millstream.testing.cache import cache_folder, try_lock
from millstream.testing.waiting import wait_until

from . import node_cgroups as cgroups
from . import node_network as network
from . import node_runtime as runtime
from .control_plane import FIRST_SERVICE, ControlPlane
from .engine import Docker
from .node_network import MACHINE, NODE, PODS, inside
from .node_tools import COREDNS, KUBELET
from .tools import NoTool

NAME = "mill-node"
DNS = FIRST_SERVICE.rpartition(".")[0] + ".10"
COREDNS_IMAGE = f"millstream/coredns:{COREDNS.version}"
TOUCHED = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
"""What kubelet sets for the whole machine."""


class RealNode(ControlPlane):
    """A control plane that listens to the node too, and that node."""

    address = MACHINE

    def __init__(self, folder: Path, docker: Docker, cache: Path | None = None) -> None:
        """Nothing is started yet."""
        super().__init__(folder, cache)
        self._docker = docker
        self._kept = (cache or cache_folder()) / "node"
        """Images, as containerd has them, from run to run."""
        self._before: dict[str, str] = {}
        self._lock: IO[str] | None = None

    def start(self, *, api_only: bool = False) -> None:
        """Raises NoTool, ServerDidNotStart."""
        if os.geteuid() != 0:
            raise NoTool("a node makes a network namespace, cgroups and mounts: only root can")
        self._kept.mkdir(parents=True, exist_ok=True)
        self._lock = (self._kept / "lock").open("a")
        if not try_lock(self._lock.fileno()):
            raise NoTool(f"another run has a node on this machine ({self._lock.name})")
        self._before = {name: network.command("sysctl", "-n", name).strip() for name in TOUCHED}
        self._clear()
        network.up()
        runtime.STATE.mkdir(parents=True)
        super().start(api_only=api_only)

    def stop(self) -> None:
        """Pods first, without grace; then everything that was made on this machine. Twice is safe."""
        ours = {process.name: process for process in self.processes}
        for name in ("kubelet", "kube-proxy"):  # else it would start again what is ended below
            if name in ours:
                ours[name].terminate(grace=10)
        if "containerd" in ours and ours["containerd"].alive():
            with suppress(NoTool):
                runtime.end_pods()
        super().stop()
        self._clear()
        for name, value in self._before.items():
            with suppress(NoTool):
                network.command("sysctl", "-qw", f"{name}={value}")
        if self._lock is not None:
            self._lock.close()

    def load(self, images: Iterable[str]) -> None:
        """Of the engine's. Raises NoTool."""
        runtime.load(self._docker, images, self._kept / "loaded.json")

    def tag(self, image: str, tag: str) -> str:
        """The same image by another tag, as a pod names it."""
        other = f"{image.rpartition(':')[0]}:{tag}"
        runtime.ctr("images", "tag", "--force", f"docker.io/{image}", f"docker.io/{other}")
        return other

    def kill(self, pod: Mapping[str, Any]) -> None:
        """SIGKILL to its first container."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        runtime.ctr("tasks", "kill", "--signal=SIGKILL", container)

    def _clear(self) -> None:
        """What a run that was killed left, too."""
        cgroups.remove(NAME)
        runtime.forget()
        runtime.unmount(self.folder / "kubelet")
        network.down()

    def _for_nodes(self) -> tuple[str, ...]:
        certificate, key = self.authority.vouch("to-kubelet", "api-server", "system:masters")
        return (
            # Pods reach the API server as a Service.
            "--endpoint-reconciler-type=lease",
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
            # The default asks for the node by a name that nothing resolves.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            *(f"--kubelet-client-certificate={certificate}", f"--kubelet-client-key={key}"),
        )

    def _nodes(self) -> None:
        self._containerd()
        runtime.pause(self._docker)
        if not self._docker.has(COREDNS_IMAGE):
            runtime.of_one_program(self._docker, COREDNS_IMAGE, COREDNS.path(self._cache, "coredns"))
        self.load([runtime.PAUSE_IMAGE, COREDNS_IMAGE])
        self._kubelet()
        self._proxy()
        self.kubectl("wait", "--for=condition=Ready", "--timeout=60s", f"node/{NAME}", within=90)
        self.kubectl("apply", "--server-side", "-f", "-", given=NAMES.format(image=COREDNS_IMAGE, address=DNS))
        wait_until(names_are_answered, within=90, what="CoreDNS, by its Service's address")

    def _containerd(self) -> None:
        config = runtime.configure(self.folder / "containerd", self._kept / "containerd", PODS)
        self._inside("containerd", Path("containerd"), "--config", config, ready=runtime.answers)
        runtime.end_pods()  # of a run that was killed: what is kept with the images

    def _kubelet(self) -> None:
        user = f"system:node:{NAME}"
        kubeconfig = self.authority.kubeconfig(self.server, "kubelet", user, "system:nodes")
        certificate, key = self.authority.vouch("kubelet-server", user, "system:nodes", hosts=(NAME, NODE))
        nowhere = self.folder / "resolv.conf"
        nowhere.write_text("")  # pods have no way out; a resolver of the machine would only be waited for
        config = self._write(
            "kubelet.json",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": NODE,
                "healthzBindAddress": NODE,
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(self.authority.certificate)},
                },
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": str(certificate),
                "tlsPrivateKeyFile": str(key),
                "containerRuntimeEndpoint": f"unix://{runtime.SOCKET}",
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{cgroups.make(NAME)}",
                # From 1.35 on it refuses version 1 otherwise.
                "failCgroupV1": False,
                # Its own -999 wants CAP_SYS_RESOURCE.
                "oomScoreAdj": 0,
                "clusterDomain": "cluster.local",
                "clusterDNS": [DNS],
                "resolvConf": str(nowhere),
                # Nothing is thrown away for want of disk: our images cannot be fetched again.
                "imageGCHighThresholdPercent": 100,
                "evictionHard": {
                    "memory.available": "100Mi",
                    "nodefs.available": "500Mi",
                    "imagefs.available": "500Mi",
                },
                "podLogsDir": str(self.folder / "pods"),
                "volumePluginDir": str(self.folder / "volumes"),
            },
        )
        self._inside(
            *("kubelet", KUBELET.path(self._cache, "kubelet"), f"--config={config}", f"--kubeconfig={kubeconfig}"),
            *(f"--root-dir={self.folder / 'kubelet'}", f"--cert-dir={self.folder / 'keys'}"),
            *(f"--hostname-override={NAME}", f"--node-ip={NODE}"),
            ready=lambda: self.asks(f"http://{NODE}:10248/healthz"),
        )

    def _proxy(self) -> None:
        kubeconfig = self.authority.kubeconfig(self.server, "kube-proxy", "system:kube-proxy")
        config = self._write(
            "kube-proxy.json",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "iptables",
                "clientConnection": {"kubeconfig": str(kubeconfig)},
                "hostnameOverride": NAME,
                "clusterCIDR": PODS,
                "healthzBindAddress": f"{NODE}:10256",
                "metricsBindAddress": "127.0.0.1:10249",
                "oomScoreAdj": 0,
                # Those of the machine can be set outside of the namespace alone.
                "conntrack": {
                    **{"maxPerCore": 0, "min": 0},
                    **{"tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
                },
            },
        )
        self._inside(
            *("kube-proxy", KUBELET.path(self._cache, "kube-proxy"), f"--config={config}"),
            ready=lambda: self.asks(f"http://{NODE}:10256/healthz"),
        )

    def _inside(self, name: str, program: Path, *arguments: str | Path, ready: object) -> None:
        first, *rest = inside(program, *arguments)
        assert callable(ready)
        self.launch(name, Path(first), *rest, ready=ready)

    def _write(self, name: str, config: object) -> Path:
        file = self.folder / name
        file.write_text(json.dumps(config, indent=1))
        return file


def names_are_answered() -> bool:
    """Through kube-proxy to CoreDNS; its other port is UDP's."""
    try:
        with socket.create_connection((DNS, 53), timeout=2):
            return True
    except OSError:
        return False


NAMES = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: coredns, namespace: kube-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: mill-coredns}}
rules:
  - {{apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}}
  - {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: mill-coredns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: mill-coredns}}
subjects: [{{kind: ServiceAccount, name: coredns, namespace: kube-system}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: coredns, namespace: kube-system}}
data:
  Corefile: |
    .:53 {{
      errors
      health
      ready
      kubernetes cluster.local in-addr.arpa
      cache 5
      loadbalance
    }}
---
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}
spec:
  clusterIP: {address}
  selector: {{k8s-app: kube-dns}}
  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: coredns, namespace: kube-system}}
spec:
  selector: {{matchLabels: {{k8s-app: kube-dns}}}}
  template:
    metadata: {{labels: {{k8s-app: kube-dns}}}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      containers:
        - name: coredns
          image: {image}
          imagePullPolicy: Never
          args: [-conf, /etc/coredns/Corefile]
          readinessProbe: {{httpGet: {{path: /ready, port: 8181}}, periodSeconds: 1}}
          resources: {{limits: {{memory: 128Mi}}, requests: {{cpu: 20m, memory: 30Mi}}}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL], add: [NET_BIND_SERVICE]}}
          volumeMounts: [{{name: config, mountPath: /etc/coredns}}]
      volumes: [{{name: config, configMap: {{name: coredns}}}}]
"""
