"""A network namespace for the node, with one line to this machine and none to anywhere else.

In one of its own no rule of the machine's firewall is in the way, the usual ports are free, and what kube-proxy and the CNI
plugins write goes with it. From the machine pods and Services are reached; from pods this machine is, by MACHINE.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from .control_plane import SERVICES
from .tools import NoTool

NAME = "mill-node"
"""Of the namespace; one a machine. Its end of the line has room for 15 characters."""
MACHINE, NODE = "10.213.0.1", "10.213.0.2"
PODS = "10.213.16.0/20"


def command(*words: str | Path, within: float = 60, given: bytes | None = None) -> str:
    """What it prints. Raises NoTool with what it said."""
    said = subprocess.run([*map(str, words)], capture_output=True, check=False, timeout=within, input=given)
    if said.returncode:
        raise NoTool(
            f"{' '.join(map(str, words))[:200]}: {(said.stderr or said.stdout).decode(errors='replace').strip()}"
        )
    return said.stdout.decode(errors="replace")


def inside(*words: str | Path) -> tuple[str, ...]:
    """As a command in the namespace. `ip netns exec` would mount another /sys, without the cgroups that runc needs."""
    return ("nsenter", f"--net=/run/netns/{NAME}", "--", *map(str, words))


def up() -> None:
    """Raises NoTool."""
    down()
    line = f"{NAME}-h"
    command("ip", "netns", "add", NAME)
    command("ip", "link", "add", line, "type", "veth", "peer", "name", "eth0", "netns", NAME)
    command("ip", "address", "add", f"{MACHINE}/30", "dev", line)
    command("ip", "link", "set", line, "up")
    command("ip", "-n", NAME, "address", "add", f"{NODE}/30", "dev", "eth0")
    for device in ("eth0", "lo"):
        command("ip", "-n", NAME, "link", "set", device, "up")
    # Who would leave hears so at once; without a route it waits.
    command("ip", "-n", NAME, "route", "add", "unreachable", "default")
    # What the node itself sends is routed before kube-proxy's rules see it.
    command("ip", "-n", NAME, "route", "add", SERVICES, "dev", "eth0")
    for there in (SERVICES, PODS):
        command("ip", "route", "replace", there, "via", NODE, "dev", line)
    command(*inside("sysctl", "-qw", "net.ipv4.ip_forward=1"))
    with suppress(NoTool):  # a kernel without the module has no such switch, and needs none
        # Else the answer of a pod to another on the same bridge skips the way back through the Service.
        command(*inside("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"))


def down() -> None:
    """Also what a run that was killed left. Twice is safe."""
    with suppress(NoTool):
        command("ip", "link", "delete", f"{NAME}-h")  # with its peer and the routes
    if Path("/run/netns", NAME).exists():
        command("ip", "netns", "delete", NAME)
