"""The programs of a Kubernetes control plane and of KEDA, built once from Go modules into the cache folder.

python -m tests.deploy.plane_tools    build what is missing; half an hour or more the first time, and 8 GB of disk meanwhile
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from millstream.testing.cache import cache_folder

from .kube_schemas import CRDS, KEDA
from .tools import OLDEST_GO, NoTool, building, environment, go_version, module_source

FREE_DISK = 10 * 2**30
"""Modules and objects of KEDA, with every cloud's SDK, and of Kubernetes."""


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Programs of one module, pinned, in one folder of the cache."""

    name: str
    module: str
    version: str
    packages: dict[str, str]
    """Of each program's name: the package that it is, as in `packages` of Go."""
    variables: dict[str, str]
    """Set by the linker."""
    staging: str = ""
    """The version of the modules that this one requires at v0.0.0 and replaces by folders that its zip has not."""
    wrapped: bool = False
    """Built from a module of ours that requires it, because its own replacements are folders that its zip has not."""
    source: str = ""
    """Of main.go in the module of ours, where the program is one of ours too."""

    def folder(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.version}"

    def path(self, cache: Path, program: str) -> Path:
        return self.folder(cache) / program


_VERSION = "k8s.io/component-base/version"
KUBERNETES = Programs(
    name="kubernetes",
    module="k8s.io/kubernetes",
    version="v1.35.4",
    staging="v0.35.4",
    wrapped=True,
    packages={
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
    },
    # Without them the server calls itself v0.0.0-master, and Helm believes it.
    variables={
        f"{_VERSION}.gitVersion": "v1.35.4",
        f"{_VERSION}.gitMajor": "1",
        f"{_VERSION}.gitMinor": "35",
        f"{_VERSION}.gitTreeState": "clean",
    },
)
ETCD = Programs(
    name="etcd",
    module="go.etcd.io/etcd/server/v3",
    version="v3.6.16",
    wrapped=True,
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    variables={},
)
KWOK = Programs(
    name="kwok",
    module="sigs.k8s.io/kwok",
    version="v0.8.0",
    packages={"kwok": "./cmd/kwok"},
    variables={},
)
SCALER = Programs(
    name="keda",
    module=KEDA[0],
    version=KEDA[1],
    packages={"keda-operator": "./cmd/operator", "keda-adapter": "./cmd/adapter", "keda-webhooks": "./cmd/webhooks"},
    variables={f"{KEDA[0]}/version.Version": KEDA[1].removeprefix("v")},
)
PLANE = (ETCD, KUBERNETES, KWOK)
ALL = (*PLANE, SCALER)


def manifests(cache: Path) -> Path:
    """The folder of what is applied: keda/ (its config), kwok/ (stages of nodes and pods), crds/."""
    pins = json.dumps([KWOK.version, [[*module, *files] for module, files in CRDS.items()]])
    return cache / f"plane-manifests-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"


def missing(cache: Path, *groups: Programs) -> list[Path]:
    """What of `groups`, or of what they are given to apply, is not there."""
    programs = [group.path(cache, name) for group in groups for name in group.packages]
    return [path for path in (*programs, manifests(cache)) if not path.exists()]


def build(group: Programs, cache: Path) -> Path:
    """The folder of its programs; built where one is not there. Raises NoTool."""
    folder = group.folder(cache)
    if all(group.path(cache, name).exists() for name in group.packages):
        return folder
    found = go_version()
    if found is None or found < OLDEST_GO:
        here = "there is no Go here" if found is None else f"this Go is {found[0]}.{found[1]}"
        raise NoTool(f"{group.name} {group.version} is built by Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer, and {here}")
    cache.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(cache).free) < FREE_DISK:
        raise NoTool(
            f"{group.name} {group.version}: {cache} has {free / 2**30:.1f} GB free, and a build takes 10 meanwhile"
        )
    with tempfile.TemporaryDirectory(prefix="millstream-go-") as work:
        source = wrapper(group, Path(work)) if group.wrapped else copy_of(group, Path(work))
        made = Path(work) / "made"
        made.mkdir()
        flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in group.variables.items())])
        # Nobody debugs them, and the compiler is a tenth quicker without tables for it.
        go(
            "build",
            "-gcflags=all=-dwarf=false",
            "-ldflags",
            flags,
            "-o",
            f"{made}/",
            *group.packages.values(),
            at=source,
        )
        folder.mkdir(parents=True, exist_ok=True)
        for name, package in group.packages.items():
            half = folder / f"{name}.half"
            shutil.move(made / binary(package), half)
            half.replace(folder / name)  # whole or not at all: an interrupted build is none
    return folder


def binary(package: str) -> str:
    """As `go build` calls it: the last part of the path that is no version."""
    return next(part for part in reversed(package.split("/")) if not re.fullmatch(r"v\d+", part))


def go(*arguments: str, at: Path) -> str:
    """What it prints. Raises NoTool."""
    # Two packages at once: more would take more memory than most machines have left.
    flags = environment()["GOFLAGS"].replace("-p=1", "-p=2")
    said = subprocess.run(
        ["go", *arguments], cwd=at, env=environment() | {"GOFLAGS": flags}, capture_output=True, text=True, check=False
    )
    if said.returncode:
        raise NoTool(f"go {' '.join(arguments)[:200]}:\n{said.stderr[-2000:]}")
    return said.stdout


def copy_of(group: Programs, work: Path) -> Path:
    """A copy of the module with its own go.mod: `go install module@version` refuses modules with replacements."""
    source = work / "source"
    shutil.copytree(module_source(group.module, group.version), source)
    for entry in (source, *source.rglob("*")):
        entry.chmod(entry.stat().st_mode | 0o200)
    return source


def wrapper(group: Programs, work: Path) -> Path:
    """A module of ours that requires it: replacements of a required module do not count, so ours name published versions."""
    source = work / "source"
    source.mkdir()
    go("mod", "init", f"millstream/{group.name}", at=source)
    if group.staging:
        required = json.loads(go("mod", "download", "-json", f"{group.module}@{group.version}", at=source))["GoMod"]
        # Not k8s.io/utils v0.0.0-20251002…, which is a version like any other.
        staged = sorted(set(re.findall(r"(k8s\.io/[a-z0-9-]+) v0\.0\.0\s", Path(required).read_text())))
        go("mod", "edit", *(f"-replace={module}={module}@{group.staging}" for module in staged), at=source)
    if group.source:
        (source / "main.go").write_text(group.source)
        go("get", f"{group.module}@{group.version}", at=source)
        go("mod", "tidy", at=source)
    else:
        go("get", *(f"{package}@{group.version}" for package in group.packages.values()), at=source)
    return source


def keep_manifests(cache: Path) -> Path:
    """The folder of manifests(cache), from the modules that bring them. Raises NoTool."""
    made = manifests(cache)
    if made.exists():
        return made
    half = made.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(module_source(*KEDA) / "config", half / "keda")
    shutil.copytree(module_source(KWOK.module, KWOK.version) / "kustomize" / "stage", half / "kwok")
    (half / "crds").mkdir(parents=True)
    for (module, version), files in CRDS.items():
        if (module, version) == KEDA:
            continue  # by its kustomization, which adds to them
        for file in files:
            # Argo installs CRDs without fields as well: etcd takes no object of three megabytes.
            file = file.replace("/full/", "/minimal/")
            shutil.copyfile(
                module_source(module, version) / file, half / "crds" / f"{module.replace('/', '_')}-{Path(file).name}"
            )
    for entry in half.rglob("*"):
        entry.chmod(entry.stat().st_mode | 0o200)
    half.chmod(0o755)
    half.replace(made)
    return made


def main() -> int:
    cache = cache_folder()
    if not missing(cache, *ALL):
        return 0
    print("millstream: builds etcd, Kubernetes, kwok and KEDA, once: half an hour or more, 8 GB meanwhile", flush=True)
    try:
        with building(cache):
            for group in ALL:
                print(build(group, cache), flush=True)
            print(keep_manifests(cache))
    except NoTool as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
