"""The README of a user who has this library alone: a repo, a worker, a lake, a rebuild and an explanation, line by line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKS = re.findall(r"```\w+\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def block(begins: str) -> str:
    (found,) = (one for one in BLOCKS if one.startswith(begins))
    return str(found)


@pytest.mark.connected
def test_the_shop_of_the_readme_opens(tmp_path: Path, valkey_url: str) -> None:
    (tmp_path / "shop").mkdir()

    def here(begins: str) -> str:
        return block(begins).replace("redis://localhost:6379/0", valkey_url)

    def run(begins: str) -> str:
        """What the program prints, in a process of its own, as a user has it."""
        done = subprocess.run(
            [sys.executable, "-B", "-c", here(begins)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    (tmp_path / "shop" / "definitions.py").write_text(here("# shop/definitions.py"))
    (tmp_path / "shop" / "feature_store.yaml").write_text(
        here("# shop/feature_store.yaml") + here("# feature_store.yaml")
    )
    tried = run("# try.py")
    assert "APPLIED" in tried
    assert "'spend_1h': [20.0]" in tried
    assert "'spend_1h': [0.0]" in tried
    assert run("import time\nfrom millstream_tiles.lake import Lake").startswith("2\n")
    kept = run("# upkeep.py")
    assert "generation=2" in kept
    assert "events=2" in kept
    assert kept.endswith("20.0 20.0 20.0\n")
