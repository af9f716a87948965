"""Environments of peers: what they need must not come near what the services need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 900
"""Seconds for an environment: the largest peer brings half a gigabyte."""


def installed(name: str, lock: Path) -> Path:
    """The Python of the environment `name` under bench/out, which has what `lock` says and nothing else.

    Made once, and again when the lock changes or an installation was cut off. Raises RuntimeError, saying what failed.
    """
    folder = ROOT / "bench" / "out" / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if python.exists() and done.exists() and done.read_text() == lock.read_text():
        return python
    if not (uv := shutil.which("uv") or shutil.which("uv", path=ROOT / ".millstream" / "uv" / "bin")):
        raise RuntimeError(f"{name} needs uv for its environment; make setup brings it")
    _run(name, [uv, "venv", "-q", "--clear", "--python", "3.11", str(folder)])
    _run(name, [uv, "pip", "install", "-q", "--no-deps", "--python", str(python), "-r", str(lock)])
    done.write_text(lock.read_text())
    return python


def _run(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f"{name} is not installed after {PATIENCE} s; run it again, what was loaded is kept"
        ) from error
    if done.returncode:
        raise RuntimeError(f"{name} does not install: {done.stderr.strip()[-400:]}")
