"""Apache Kafka's jars, and other pinned, hashed lists: fetched once through Maven or, where there is none, through `jgo`."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from millstream.testing.cache import cache_folder, one_at_a_time
from millstream.testing.errors import ToolMissing
from millstream.testing.extras import need

KAFKA_VERSION = "4.2.1"

FETCH_WITHIN_SECONDS = 240.0
"""Seen: Maven 7 s, jgo 8 to 25 s for 92 jars, 54 MB."""

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Jar:
    """One file of the pinned list (`kafka-jars.txt`)."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """As Maven names it."""
        return f"{self.artifact}-{self.version}.jar"


def pinned() -> list[Jar]:
    """The list, in class path order.

    It is pinned because resolvers disagree: jgo 3.2 lets log4j's dependency management decide on Kafka's own
    libraries and picks kafka-clients 3.8.0 for a 4.2.1 broker.
    """
    return listed(files("millstream.testing").joinpath("kafka-jars.txt").read_text())


def listed(text: str) -> list[Jar]:
    """What a pinned list names: `group:artifact:version sha256:digest` a line, in class path order; # begins a remark."""
    return [_parse(line) for line in text.splitlines() if line and not line.startswith("#")]


def _parse(line: str) -> Jar:
    coordinate, _, digest = line.partition(" sha256:")
    group, artifact, version = coordinate.split(":")
    return Jar(group=group, artifact=artifact, version=version, sha256=digest)


def kafka_folder() -> Path:
    """Where everything about this Kafka version is cached."""
    return cache_folder() / f"kafka-{KAFKA_VERSION}"


def kafka_jars(progress: Progress = lambda _: None) -> list[Path]:
    """The jars, fetched if this machine has not yet. Safe for several processes at once.

    Raises ToolMissing when neither Maven nor jgo gets them, with both reasons.
    """
    return fetched(f"Apache Kafka {KAFKA_VERSION}", "54 MB", pinned(), kafka_folder() / "jars", progress)


def fetched(what: str, size: str, jars: list[Jar], folder: Path, progress: Progress = lambda _: None) -> list[Path]:
    """The jars of a pinned list, in `folder`: fetched and checked once. Safe for several processes. Raises ToolMissing.

    What is fetched meanwhile lies beside `folder`: let its parent be of this list alone."""
    if not folder.is_dir():
        with one_at_a_time(folder.parent / "fetch.lock", f"fetches {what}"):
            if not folder.is_dir():
                _fetch_all(what, size, jars, folder, progress)
    return [folder / jar.filename for jar in jars]


def _fetch_all(what: str, size: str, jars: list[Jar], folder: Path, progress: Progress) -> None:
    ways: list[tuple[str, Callable[[list[Jar], Path], None]]] = [("jgo", fetch_with_jgo)]
    if shutil.which("mvn"):  # first, because it knows the user's mirrors and proxies
        ways.insert(0, ("mvn", fetch_with_mvn))
    reasons: list[str] = []
    for name, fetch in ways:
        progress(f"fetching {what} ({size}, once) through {name}")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as scratch:
            got = Path(scratch) / "jars"
            got.mkdir()
            try:
                fetch(jars, got)
                _verify(jars, got)
            except ToolMissing as missing:
                reasons.append(f"{name}: {missing}")
                continue
            got.rename(folder)  # complete or absent, never half
            return
    raise ToolMissing(f"{what} could not be fetched. {' — '.join(reasons)}")


def _verify(jars: list[Jar], folder: Path) -> None:
    for jar in jars:
        file = folder / jar.filename
        if not file.is_file():
            raise ToolMissing(f"{jar.filename} was not delivered")
        if hashlib.sha256(file.read_bytes()).hexdigest() != jar.sha256:
            raise ToolMissing(f"{jar.filename} is not the file that was pinned (its SHA-256 differs)")


def fetch_with_mvn(jars: list[Jar], folder: Path) -> None:
    """Copy the jars into `folder` through Maven, which honours ~/.m2/settings.xml. Raises ToolMissing."""
    pom = folder.parent / "pom.xml"
    pom.write_text(_pom(jars))
    goal = "dependency:copy-dependencies"
    options = ["-DexcludeTransitive=true", f"-DoutputDirectory={folder}"]
    command = ["mvn", "-q", "-B", "-ntp", "-f", str(pom), goal, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_WITHIN_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolMissing(str(error)) from error
    if done.returncode != 0:
        raise ToolMissing(f"{goal} failed: {(done.stdout + done.stderr).strip()[-500:]}")


def _pom(jars: list[Jar]) -> str:
    dependencies = "\n".join(
        f"<dependency><groupId>{jar.group}</groupId><artifactId>{jar.artifact}</artifactId>"
        f"<version>{jar.version}</version></dependency>"
        for jar in jars
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>millstream</groupId><artifactId>kafka</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>\n{dependencies}\n</dependencies></project>\n"
    )


def fetch_with_jgo(jars: list[Jar], folder: Path) -> None:
    """Download the jars into `folder` with jgo's Maven client: pure Python, no JVM, no mvn. Raises ToolMissing."""
    maven = need("jgo.maven").MavenContext(repo_cache=folder.parent / "repository", timeout=30)
    deadline = time.monotonic() + FETCH_WITHIN_SECONDS

    def fetch(jar: Jar) -> None:
        if time.monotonic() > deadline:
            raise ToolMissing(f"not done after {FETCH_WITHIN_SECONDS:g} s")
        downloaded = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        os.replace(downloaded, folder / jar.filename)

    with ThreadPoolExecutor(8, thread_name_prefix="jgo") as pool:
        downloads = [pool.submit(fetch, jar) for jar in jars]
    # jgo raises RuntimeError, AssertionError and whatever requests raises: all mean that it did not get a jar.
    failed = [error for download in downloads if (error := download.exception()) is not None]
    if failed:
        raise ToolMissing(f"{len(failed)} of {len(jars)} jars did not come: {failed[0]}") from failed[0]
