"""The README of a user who has this library alone: a repo, a worker, a lake, a rebuild and an explanation, line by line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

BLOCKS = re.findall(r"```\w+\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def block(begins: str) -> str:
    (found,) = (one for one in BLOCKS if one.startswith(begins))
    return str(found)


def test_the_shop_of_the_readme_opens(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "shop").mkdir()

    def here(begins: str) -> str:
        return block(begins).replace("redis://localhost:6379/0", valkey_url)

    (tmp_path / "shop" / "definitions.py").write_text(here("# shop/definitions.py"))
    (tmp_path / "shop" / "feature_store.yaml").write_text(
        here("# shop/feature_store.yaml") + here("# feature_store.yaml")
    )
    said = []
    for program in ("# try.py", "import time\nfrom millstream_tiles.lake import Lake", "# upkeep.py"):
        exec(compile(here(program), program, "exec"), {"__name__": "__main__"})
        said.append(capsys.readouterr().out)

    assert "APPLIED" in said[0]
    assert "'spend_1h': [20.0]" in said[0]
    assert "'spend_1h': [0.0]" in said[0]
    assert said[1].startswith("2\n")
    assert "generation=2" in said[2]
    assert "events=2" in said[2]
    assert said[2].endswith("20.0 20.0 20.0\n")
