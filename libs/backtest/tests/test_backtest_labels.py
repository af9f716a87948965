"""A past whose labels come too late for the loop that is to be judged by them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from millstream.project import load_project
from millstream_backtest.backtest import Recorded, Wanted, backtest
from millstream_backtest.errors import BacktestFailed
from millstream_backtest.policies import read_policies

from .test_backtest import FLIGHTS, HOUR, LOOP, recording, write


def test_labels_that_all_come_too_late_end_it_with_what_to_do(tmp_path: Path) -> None:
    project, yaml = load_project(FLIGHTS), YAML()
    policy = write(tmp_path, "hasty")
    loop = yaml.load(policy)
    loop["label"]["within"] = "1s"
    yaml.dump(loop, policy)
    with pytest.raises(
        BacktestFailed,
        match=r"none of \d+ labels belongs to one of \d+ questions within label\.within, 1s: write a longer",
    ):
        backtest(
            project,
            read_policies(project, LOOP, [policy]),
            Recorded(events=recording(turn=8)),
            Wanted(tick=HOUR),
            folder=tmp_path / "work",
        )
