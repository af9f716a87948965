"""Environments of peers: what they need must not come near what the services need."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def installed(name: str, needs: Sequence[str]) -> Path:
    """The Python of the environment `name`, made once under bench/out. Raises RuntimeError, saying why it does not install."""
    uv = shutil.which("uv") or str(ROOT / ".millstream/uv/bin/uv")
    folder = ROOT / "bench" / "out" / name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", "--python", "3.11", str(folder)], check=True)
    done = subprocess.run(
        [uv, "pip", "install", "-q", "--python", str(python), *needs],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"does not install: {done.stderr.strip()[-300:]}")
    return python
