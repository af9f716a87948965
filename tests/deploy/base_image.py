"""The image that all of ours stand on, python:3.11-slim; without a registry, made of Debian's packages and this Python.

Made so it has what the official one has: Debian 12, glibc, certificates, CPython with pip. It is for tests: what is
published is built on the official one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from .engine import Docker
from .tools import NoTool

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
IMAGE = f"python:{VERSION}-slim"
PULL_WITHIN = 120
LIBRARIES = (
    "ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,"
    "libuuid1,zlib1g,libexpat1,libgomp1"
)
"""libgomp1 because a build has no sources of packages; the others are what CPython's own modules are linked against."""
UNREAD = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Those that this machine trusts: a build fetches packages as we do."""


def base_image(docker: Docker) -> str:
    """Its name, once it is there. Raises NoTool."""
    if docker.has(IMAGE):
        return IMAGE
    try:
        docker("pull", "--quiet", IMAGE, within=PULL_WITHIN)
    except (NoTool, subprocess.TimeoutExpired):
        print(f"millstream: no registry gives {IMAGE}; it is made of Debian's packages and this Python", flush=True)
        make(docker)
    return IMAGE


def make(docker: Docker) -> None:
    if shutil.which("mmdebstrap") is None:
        raise NoTool(
            f"no registry gives {IMAGE}, and mmdebstrap is not here to make it; on Debian: apt-get install mmdebstrap"
        )
    python = Path(sys.base_prefix)
    shared = python / "lib" / str(sysconfig.get_config_var("INSTSONAME"))
    if not shared.exists():
        raise NoTool(f"no registry gives {IMAGE}, and this Python ({python}) has no shared library to make it of")
    with tempfile.TemporaryDirectory(prefix="millstream-base-") as work:
        root = Path(work) / "root"
        run(
            "mmdebstrap", "-q", "--variant=minbase", f"--include={LIBRARIES}", *excluded(), "bookworm", root, *sources()
        )
        put_python(root, python, shared)
        (root / "etc/apt/sources.list").write_text("")
        (root / "etc/resolv.conf").write_text("")
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        archive = Path(work) / "root.tar"
        run("tar", "-C", root, "-cf", archive, ".")
        settings = {
            "PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "SSL_CERT_FILE": str(CERTIFICATES),
        }
        changes = (part for name, value in settings.items() for part in ("-c", f"ENV {name}={value}"))
        docker("import", "-c", 'CMD ["python3"]', *changes, archive, IMAGE, within=300)


def put_python(root: Path, python: Path, shared: Path) -> None:
    """This CPython, without its tests, in /usr/local as the official image has it."""
    library = Path("lib") / f"python{VERSION}"
    shutil.copytree(
        python / library,
        root / "usr/local" / library,
        symlinks=True,
        ignore=shutil.ignore_patterns("test", "site-packages", "config-*", "__pycache__"),
    )
    (root / "usr/local" / library / "site-packages").mkdir()
    shutil.copy2(shared, root / "usr/local/lib" / shared.name)
    program = root / "usr/local/bin" / f"python{VERSION}"
    shutil.copy2(python / "bin" / program.name, program)
    (program.parent / "python3").symlink_to(program.name)
    (program.parent / "python").symlink_to("python3")
    shutil.copy2(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n")
    run(
        "chroot",
        root,
        "sh",
        "-c",
        "ldconfig && python3 -m ensurepip && ln -sf pip3 /usr/local/bin/pip && pip --version",
    )


def excluded() -> list[str]:
    return [f"--dpkgopt=path-exclude={path}" for path in UNREAD]


def sources() -> list[str]:
    """Lines of sources.list for Debian 12, from where this machine has its packages."""
    found = Path("/etc/apt/sources.list.d/debian.sources")
    if not found.exists():
        raise NoTool(f"no registry gives {IMAGE}, and {found} does not say where Debian's packages are")
    uris = [line.split()[1] for line in found.read_text().splitlines() if line.startswith("URIs:")]
    suites = ("bookworm", "bookworm-security")
    return [f"deb {uri} {suite} main" for uri, suite in zip(uris, suites, strict=False)]


def run(*command: str | Path) -> None:
    """Raises NoTool with the end of what it printed."""
    said = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=900)
    if said.returncode:
        raise NoTool(f"{command[0]}: {(said.stdout + said.stderr).strip()[-1000:]}")
