"""Three loops of three tasks ask the same stream: each is summarised for itself, and nobody counts the others' answers."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from millstream.contracts.times import HOUR
from millstream.project import load_project
from millstream_cli.demo import demo
from millstream_cli.journal import read_file

PROJECT = Path(__file__).parent / "kiosk"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


async def test_a_demo_of_three_tasks_on_one_stream_ends_well_and_tells_each_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLSTREAM_LAKE_QUIET", "4")  # what it has in hand is not in the lake when the replay ends
    project = load_project(Path(shutil.copytree(PROJECT, tmp_path / "project")))
    screen = StringIO()
    out = tmp_path / "out"
    console = Console(file=screen, width=200)

    figures = await demo(project=project, root=tmp_path / "mill", out=out, tick=HOUR, until=None, console=console)

    said = screen.getvalue()
    assert figures["broken_promises"] == [], said
    assert json.loads((out / "demo.json").read_text())["loops"] == figures["loops"]
    loops = figures["loops"]
    assert {name: found["metric"] for name, found in loops.items()} == {
        "kiosk-amount": "squared_error",
        "kiosk-basket": "log_loss",
        "kiosk-buy": "log_loss",
    }
    for name, found in loops.items():
        assert found["questions"] == 6 * 24 * 16, name
        assert found["predictions_effective"] > 500, name
        # The first model of the loop itself answered everything, so that keeping it for ever changes no digit.
        assert found[f"static_{found['metric']}"] == pytest.approx(found[found["metric"]], rel=1e-5), name
        assert (found["retrains"], found["promotions"]) == (1, 1), name
        assert f"serving  {name}: champion is version 1" in said
    assert "loop" not in figures
    assert {told.loop for told in read_file(out / "journal.jsonl")} >= set(loops)
