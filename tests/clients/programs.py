"""Feast's own Go SDK and Java client, each in a program of a hundred lines that asks what it is told. Built once a machine.

python -m tests.clients.programs    build what is missing: two minutes for Go (1.26 or newer), half a minute for Java, 25 MB
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.deploy.tools import OLDEST_GO, NoTool, environment, go_version

from millstream.testing.cache import cache_folder, one_at_a_time
from millstream.testing.errors import ToolMissing
from millstream.testing.jars import Jar, fetched, listed
from millstream.testing.java import find_java

HERE = Path(__file__).parent


def go_program() -> Path:
    """Where the program in Go is, or will be: every version of its source, and of what it requires, has a place of its own."""
    return cache_folder() / f"feast-go-{_digest('go')}" / "ask"


def java_classes() -> Path:
    """Where the program in Java is, or will be: a folder of classes beside the one of its jars."""
    return cache_folder() / f"feast-java-{_digest('java')}" / "classes"


def java_command() -> list[str]:
    """What runs it. Raises ToolMissing where no Java is."""
    jars = [java_classes().parent / "jars" / jar.filename for jar in _java_list()]
    path = os.pathsep.join(map(str, [java_classes(), *jars]))
    return [str(find_java().path), "-cp", path, "Ask"]


def build_go() -> None:
    """Raises NoTool, with what Go says."""
    program, found = go_program(), go_version()
    if program.exists():
        return
    if found is None or found < OLDEST_GO:
        here = "there is no Go here" if found is None else f"this Go is {found[0]}.{found[1]}"
        raise NoTool(f"Feast's Go SDK is built by Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer, and {here}")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="millstream-go-") as work:
        # Nothing is shared with the builds of the charts' tools, which remove what they leave. go.sum says what may come.
        own = {"GOMODCACHE": f"{work}/modules", "GOCACHE": f"{work}/objects", "GOFLAGS": "-trimpath -p=1 -modcacherw"}
        half = program.with_suffix(".half")
        said = subprocess.run(
            ["go", "build", "-ldflags", "-s -w", "-o", str(half), "."],
            cwd=HERE / "go",
            env=environment() | own,
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode:
            raise NoTool(f"Feast's Go SDK does not build:\n{said.stderr[-2000:]}")
    half.replace(program)  # whole or not at all: an interrupted build is none


def build_java() -> None:
    """Compiled by Eclipse's compiler, which is a jar like the others, so no JDK is needed. Raises NoTool."""
    classes = java_classes()
    if classes.is_dir():
        return
    try:
        jars = fetched("Feast's Java client", "21 MB", _java_list(), classes.parent / "jars", print)
        java = find_java().path
    except ToolMissing as error:
        raise NoTool(str(error)) from error
    (compiler,) = (jar for jar in jars if jar.name.startswith("ecj-"))
    half = classes.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    path = os.pathsep.join(map(str, jars))
    said = subprocess.run(
        [java, "-jar", compiler, "-17", "-proc:none", "-cp", path, "-d", half, HERE / "java" / "Ask.java"],
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise NoTool(f"the program in Java does not compile:\n{said.stderr[-2000:]}")
    half.rename(classes)


def _java_list() -> list[Jar]:
    return listed((HERE / "java" / "jars.txt").read_text())


def _digest(folder: str) -> str:
    whole = hashlib.sha256()
    for file in sorted((HERE / folder).iterdir()):
        whole.update(file.name.encode() + file.read_bytes())
    return whole.hexdigest()[:12]


def main() -> int:
    failed = 0
    with one_at_a_time(cache_folder() / "clients.lock", "builds Feast's clients"):
        for build, made in ((build_go, go_program), (build_java, java_classes)):
            try:
                build()
                print(made())
            except NoTool as error:
                print(f"millstream: {error}", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
