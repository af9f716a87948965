"""containerd for the node alone: its pods, and images that come from the Docker engine here and from no registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .engine import PATH, Docker
from .node_network import command
from .node_tools import CNI, PAUSE
from .tools import NoTool

STATE = Path("/run/mill-node")
"""Sockets: their paths have 107 characters at most."""
SOCKET = STATE / "containerd.sock"
PAUSE_IMAGE = "millstream/pause:here"
LOAD_WITHIN = 900


def configure(folder: Path, images: Path, pods: str) -> Path:
    """The configuration's file. `images` is where they are kept, from run to run."""
    networks = folder / "cni"
    networks.mkdir(parents=True)
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        # A pod may reach itself by its Service.
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(folder / "addresses"),
            "ranges": [[{"subnet": pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    said = {"cniVersion": "1.0.0", "name": "mill", "plugins": [bridge]}
    (networks / "10-mill.conflist").write_text(json.dumps(said))
    file = folder / "containerd.toml"
    file.write_text(
        CONFIG.format(
            images=images, state=STATE / "containerd", socket=SOCKET, pause=PAUSE_IMAGE, cni=CNI, networks=networks
        )
    )
    return file


def ctr(*arguments: str) -> str:
    """In the namespace of containerd that kubelet sees. Raises NoTool."""
    return command("ctr", "--address", SOCKET, "--namespace", "k8s.io", *arguments, within=LOAD_WITHIN)


def answers() -> bool:
    try:
        ctr("version")
    except NoTool:
        return False
    return True


def of_one_program(docker: Docker, image: str, program: Path, *arguments: str) -> None:
    """An image that is one static program."""
    with tarfile.open(archive := STATE / f"{program.name}.tar", "w", dereference=True) as layer:
        layer.add(program, program.name)
    entry = json.dumps([f"/{program.name}", *arguments])
    docker("import", "-c", f"ENTRYPOINT {entry}", archive, image)
    archive.unlink()


def load(docker: Docker, images: Iterable[str], kept: Path) -> None:
    """Those of the engine that the node has not; `kept` remembers which are there. Raises NoTool."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    ids = {image: docker("image", "inspect", "--format={{.Id}}", image).strip() for image in images}
    wanted = [image for image, found in ids.items() if known.get(image) != found]
    if not wanted:
        return
    with subprocess.Popen(
        [docker.program, "save", *wanted], stdout=subprocess.PIPE, env=os.environ | {"PATH": PATH}
    ) as saving:
        taken = subprocess.run(
            ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import", "-"],
            stdin=saving.stdout,
            capture_output=True,
            text=True,
            check=False,
            timeout=LOAD_WITHIN,
        )
    if taken.returncode or saving.returncode:
        raise NoTool(f"the node does not take {', '.join(wanted)}: {taken.stderr.strip()[-1000:]}")
    kept.write_text(json.dumps(known | ids))


def end_pods() -> None:
    """All that run here, without grace."""
    for container in ctr("tasks", "list", "--quiet").split():
        with suppress(NoTool):  # one ends by itself meanwhile
            ctr("tasks", "kill", "--signal=SIGKILL", container)
    for container in ctr("containers", "list", "--quiet").split():
        with suppress(NoTool):
            ctr("tasks", "delete", "--force", container)
        with suppress(NoTool):
            ctr("containers", "delete", container)


def forget() -> None:
    """Mounts and sockets, also those that a killed run left."""
    unmount(STATE)
    shutil.rmtree(STATE, ignore_errors=True)


def unmount(folder: Path) -> None:
    """Whatever is mounted under `folder`, the deepest first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if Path(p).is_relative_to(folder)), reverse=True):
        with suppress(NoTool):
            command("umount", "--lazy", point)


def pause(docker: Docker) -> None:
    if not docker.has(PAUSE_IMAGE):
        of_one_program(docker, PAUSE_IMAGE, PAUSE, "-P")


# restrict_oom_score_adj: pause asks for -998, and who has not CAP_SYS_RESOURCE gets no sandbox at all.
CONFIG = """
version = 2
root = "{images}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""
