"""A node's programs and the control plane's, built once from Go modules into the cache folder.

python -m tests.deploy.node_tools    build what is missing; half an hour or more, and 4 GB of disk meanwhile

containerd, runc, the CNI plugins and what they call are the distribution's: `lacking()` names those that are not here.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from millstream.testing.cache import cache_folder

from .plane_tools import ETCD, KUBERNETES, Programs, build
from .tools import NoTool, building

KUBELET = Programs(
    name="kubelet",
    module=KUBERNETES.module,
    version=KUBERNETES.version,
    staging=KUBERNETES.staging,
    wrapped=True,
    packages={name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kube-proxy")},
    variables=KUBERNETES.variables,
)
PLUGINS = ("cache", "errors", "health", "kubernetes", "loadbalance", "ready")
COREDNS = Programs(
    name="coredns",
    module="github.com/coredns/coredns",
    version="v1.15.0",
    wrapped=True,
    packages={"coredns": "millstream/coredns"},
    variables={},
    # Upstream's own brings the clients of three clouds.
    source="\n".join(
        [
            "package main",
            'import "github.com/coredns/coredns/coremain"',
            *(f'import _ "github.com/coredns/coredns/plugin/{name}"' for name in PLUGINS),
            "func main() { coremain.Run() }",
        ]
    ),
)
NODE = (KUBELET, COREDNS)

CNI = Path("/usr/lib/cni")
PAUSE = Path("/usr/libexec/podman/catatonit")
"""Holds the namespaces of a pod: a static program that waits and reaps."""
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "ip": "iproute2",
    str(CNI / "bridge"): "containernetworking-plugins",
    str(PAUSE): "catatonit",
}
"""Of Debian, by the program that is wanted."""


def lacking() -> list[str]:
    """Packages of the distribution that are not installed."""
    return sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})


def missing() -> list[Path]:
    """Programs of a node and of the control plane beside it that are not built."""
    cache = cache_folder()
    return [
        path
        for group in (ETCD, KUBERNETES, *NODE)
        for name in group.packages
        if not (path := group.path(cache, name)).exists()
    ]


def main() -> int:
    cache = cache_folder()
    if not missing():
        return 0
    print("millstream: builds kubelet, kube-proxy and CoreDNS, once: half an hour or more, 4 GB meanwhile", flush=True)
    try:
        with building(cache):
            for group in (ETCD, KUBERNETES, *NODE):
                print(build(group, cache), flush=True)
    except NoTool as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
