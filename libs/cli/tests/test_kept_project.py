"""A mill's folder knows whose data it holds, so that the next start is not on another project by default."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from millstream.project import Project
from millstream_cli import up
from millstream_cli.errors import CommandFailed
from millstream_cli.main import app
from millstream_cli.mill import MillState
from millstream_cli.up import KEPT, kept_project

PARCELS = Path(__file__).parents[3] / "tests" / "e2e" / "parcels"


def keep(root: Path, project: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / KEPT).write_text(json.dumps({"project": str(project)}))


def test_a_folder_says_whose_data_it_holds(tmp_path: Path) -> None:
    assert kept_project(tmp_path) is None
    (tmp_path / KEPT).write_text("half of")
    assert kept_project(tmp_path) is None
    keep(tmp_path, PARCELS)
    assert kept_project(tmp_path) == PARCELS


def test_a_mill_says_whose_project_it_serves(tmp_path: Path) -> None:
    state = MillState(
        pid=1, project=str(PARCELS), kafka="", valkey="", mlflow=None, services={"ingest": ""},
        lake="", packages="", registry="", logs="",
    )  # fmt: skip
    console = Console(record=True, file=io.StringIO())
    up.show(state, tmp_path, console)
    assert f"project {PARCELS}" in console.export_text()


def test_a_project_that_is_gone_is_named(tmp_path: Path) -> None:
    keep(tmp_path, tmp_path / "gone")
    with pytest.raises(CommandFailed, match=r"data of the project .*/gone, which is not there any more; name it"):
        kept_project(tmp_path)


@pytest.mark.parametrize("detach", [True, False])
def test_up_goes_on_with_the_project_whose_data_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detach: bool
) -> None:
    started: list[Path] = []
    said: list[str] = []

    async def foreground(project: Project, *given: object) -> None:
        started.append(project.path)

    monkeypatch.setattr(up, "foreground", foreground)
    monkeypatch.setattr(up, "detached", lambda project, *given: started.append(project))
    typed = ["up", "--data", str(tmp_path), *(["--detach"] if detach else [])]

    def starts(*more: str) -> str:
        done = CliRunner().invoke(app, [*typed, *more])
        assert done.exit_code == 0, done.output
        said.append(done.output)
        return started[-1].name

    flights = str(PARCELS.parents[2] / "examples" / "flights")
    keep(tmp_path / "up", PARCELS)
    assert starts() == starts("--project", str(PARCELS)) == "parcels"
    assert said == ["", ""]
    assert starts("--project", flights) == "flights", "a person's word"
    assert f"holds the data of {PARCELS}: its events, models and windows stay" in said[-1]
    assert starts("--project", flights, "--fresh") == "flights"
    assert said[-1] == "", "nothing stays"
