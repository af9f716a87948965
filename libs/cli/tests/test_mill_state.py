"""Whether a mill runs: its lock says so, never a process id that may be somebody else's by now."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from millstream.testing.folder import FolderLock
from millstream_cli.errors import CommandFailed
from millstream_cli.mill import SERVERS, MillState

STATE = MillState(
    pid=os.getpid(),
    project="examples/flights",
    kafka="127.0.0.1:1",
    valkey="redis://127.0.0.1:2",
    mlflow=None,
    services={},
    lake="lake",
    packages="packages",
    registry="registry.db",
    logs="logs",
)


def test_a_state_that_a_killed_mill_left_behind_is_no_mill(tmp_path: Path) -> None:
    (tmp_path / SERVERS).mkdir()
    (tmp_path / "mill.json").write_text(json.dumps(asdict(STATE)))
    lock = FolderLock(tmp_path / SERVERS)
    lock.take()
    assert MillState.load(tmp_path) == STATE

    lock.release()
    with pytest.raises(CommandFailed, match="no mill runs"):
        MillState.load(tmp_path)


def test_where_nothing_ever_ran_there_is_no_mill(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="millstream up"):
        MillState.load(tmp_path)
