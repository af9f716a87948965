"""The tools that judge the charts and the alerts, built once from Go modules into the cache folder.

python -m tests.deploy.tools    build what is missing; 6 to 14 minutes the first time, 7 of CPU, and 3 GB of disk meanwhile
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from millstream.testing.cache import cache_folder, one_at_a_time
from millstream.testing.errors import WaitedTooLong

OLDEST_GO = (1, 26)
"""What the modules below ask for; with GOTOOLCHAIN=local an older one refuses them anyway, and says less."""

BUILT_WITHIN = 3 * 3600.0
"""Seconds that another run may take to build: everything together took two hours on two busy cores."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One program, pinned."""

    name: str
    module: str
    package: str
    version: str
    says_version: str = ""
    """Variable that the linker sets to the version."""
    tags: str = ""
    """Of the build."""

    def path(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.version}" / self.name


TOOLS = (
    Tool(
        name="helm",
        module="helm.sh/helm/v4",
        package="./cmd/helm",
        version="v4.2.4",
        says_version="helm.sh/helm/v4/internal/version.version",
    ),
    Tool(
        name="kubeconform",
        module="github.com/yannh/kubeconform",
        package="./cmd/kubeconform",
        version="v0.7.0",
        says_version="main.version",
    ),
    Tool(
        name="helm-unittest",
        module="github.com/helm-unittest/helm-unittest",
        package="./cmd/helm-unittest",
        version="v1.1.2",
    ),
    Tool(
        name="kube-score",
        module="github.com/zegl/kube-score",
        package="./cmd/kube-score",
        version="v1.20.0",
        says_version="main.version",
    ),
    Tool(
        name="promtool",
        module="github.com/prometheus/prometheus",
        package="./cmd/promtool",
        version="v0.313.5",
        says_version="github.com/prometheus/common/version.Version",
        tags="remove_all_sd",  # the clients of two dozen clouds: four fifths of the build
    ),
    Tool(
        name="actionlint",
        module="github.com/rhysd/actionlint",
        package="./cmd/actionlint",
        version="v1.7.12",
        says_version="github.com/rhysd/actionlint.version",
    ),
)


class NoTool(Exception):
    """A tool is not here and cannot be built; the message says why and what to do."""


def go_version() -> tuple[int, int] | None:
    """None where there is no Go."""
    go = shutil.which("go")
    if go is None:
        return None
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, timeout=60)
    found = re.match(r"go(\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else None


def go_folder() -> Path:
    """Where Go keeps modules and objects meanwhile: 3 GB, removed when everything is built."""
    return cache_folder() / "go"


def environment() -> dict[str, str]:
    """Of every call of Go: no other toolchain behind our back, no workspace around us, no C compiler, one package at a time."""
    return os.environ | {
        "GOMODCACHE": str(go_folder() / "modules"),
        "GOCACHE": str(go_folder() / "objects"),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -trimpath -p=1 -mod=mod",
    }


def module_source(module: str, version: str) -> Path:
    """The read-only folder of a module's files, fetched where it is not there yet.

    From a folder of its own: inside somebody's module, theirs would be asked. Raises NoTool."""
    with tempfile.TemporaryDirectory() as empty:
        said = subprocess.run(
            ["go", "mod", "download", "-json", f"{module}@{version}"],
            cwd=empty,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    found = json.loads(said.stdout or "{}")
    if "Dir" not in found:
        raise NoTool(f"{module}@{version} cannot be fetched: {found.get('Error') or said.stderr.strip()}")
    return Path(found["Dir"])


def build(tool: Tool, cache: Path) -> Path:
    """Its program; built where it is not there. Raises NoTool."""
    program = tool.path(cache)
    if program.exists():
        return program
    found = go_version()
    if found is None or found < OLDEST_GO:
        here = "there is no Go here" if found is None else f"this Go is {found[0]}.{found[1]}"
        raise NoTool(f"{tool.name} {tool.version} is built by Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer, and {here}")
    # In a copy of the module, with its own go.mod and go.sum: `go install module@version` refuses modules with replacements.
    with tempfile.TemporaryDirectory(prefix="millstream-go-") as work:
        source = Path(work) / "source"
        shutil.copytree(module_source(tool.module, tool.version), source)
        for entry in (source, *source.rglob("*")):
            entry.chmod(entry.stat().st_mode | 0o200)
        flags = "-s -w" + (f" -X {tool.says_version}={tool.version}" if tool.says_version else "")
        made = Path(work) / tool.name
        said = subprocess.run(
            ["go", "build", "-tags", tool.tags, "-ldflags", flags, "-o", str(made), tool.package],
            cwd=source,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode:
            raise NoTool(f"{tool.name} {tool.version} does not build:\n{said.stderr[-2000:]}")
        program.parent.mkdir(parents=True, exist_ok=True)
        half = program.with_suffix(".half")
        shutil.move(made, half)
        half.replace(program)  # whole or not at all: an interrupted build is none
    return program


@contextmanager
def building(cache: Path) -> Iterator[None]:
    """Alone on this machine; what Go kept goes before the next may begin. Raises NoTool."""
    try:
        with one_at_a_time(cache / "deploy-tools.lock", "builds the charts' tools", within=BUILT_WITHIN):
            try:
                yield
            finally:
                tidy()
    except WaitedTooLong as error:
        raise NoTool(str(error)) from error


def tidy() -> None:
    """Remove what Go kept. Modules are read-only. By who builds alone: another's would go with it."""
    for entry in go_folder().rglob("*"):
        if entry.is_dir() and not entry.is_symlink():
            entry.chmod(0o700)
    shutil.rmtree(go_folder(), ignore_errors=True)


def main() -> int:
    from . import delivery_schemas, kube_schemas

    cache = cache_folder()
    wanted = [tool.path(cache) for tool in TOOLS] + [kube_schemas.folder(cache), delivery_schemas.folder(cache)]
    if not all(path.exists() for path in wanted):
        try:
            with building(cache):
                for tool in TOOLS:
                    build(tool, cache)
                kube_schemas.make(cache)
                delivery_schemas.make(cache)
        except NoTool as error:
            print(f"millstream: {error}", file=sys.stderr)
            return 1
    print(*wanted, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
