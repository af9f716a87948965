"""A package says what it was made of: enough to find the rows again, and to make the same model once more."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from millstream.contracts.package import MODEL_FILE
from millstream.project import Loop
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.feast_history import _named
from millstream_trainer.adapters.project_code import code_of

from .test_trainer_choice import QUICK, said
from .test_trainer_choice import packages as packages
from .test_trainer_choice import tides_loop as tides_loop
from .test_trainer_run import trained


def test_the_recipe_alone_gives_the_same_graph_again(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    """Two histories and two settings competed, one with an early stop: of all that only what won is in the recipe."""
    settings = [
        {"num_leaves": 4, "rounds": 3},
        {"num_leaves": 15, "rounds": 200, "learning_rate": 0.3, "early_stopping": 5},
    ]
    model = {"settings": settings, "class_weight": "balanced"}
    loop = said(tides_loop, model=model, train={"history": ["all", "40d"], "seed": 23})
    first = packages.manifest(trained(loop, ships.dataset(), packages).model)
    recipe = first.lineage.recipe
    assert recipe is not None
    assert (recipe.estimator, recipe.seed, recipe.class_weight, recipe.calibration) == (
        "lightgbm",
        23,
        "balanced",
        "none",
    )
    assert recipe.candidate == "all/2"
    assert recipe.since is None
    assert recipe.params["num_leaves"] == 15
    assert recipe.params["early_stopping"] == 0, "the slices have said how many rounds it is"
    assert 0 < recipe.params["rounds"] < 200

    alone = said(
        tides_loop,
        model={"estimator": recipe.estimator, "params": recipe.params, "class_weight": recipe.class_weight},
        train={"history": "all", "seed": recipe.seed},
    )
    again = packages.manifest(trained(alone, ships.dataset(), packages).model)
    assert again.files[MODEL_FILE] == first.files[MODEL_FILE]
    other = said(tides_loop, model={"params": QUICK}, train={"seed": recipe.seed})
    assert (
        packages.manifest(trained(other, ships.dataset(), packages).model).files[MODEL_FILE] != first.files[MODEL_FILE]
    )


def test_the_lineage_says_of_which_time_the_rows_are(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    data = ships.dataset()
    lineage = packages.manifest(trained(tides_loop, data, packages).model).lineage
    assert lineage.train is not None
    assert lineage.holdout is not None
    known = data.table.known_at
    assert int(lineage.train.first.timestamp() * 1e6) == known.min()
    assert int(lineage.holdout.last.timestamp() * 1e6) == known.max()
    assert lineage.train.last < lineage.holdout.first
    inside = (known >= known.min()) & (known <= int(lineage.train.last.timestamp() * 1e6))
    assert inside.sum() == lineage.train_rows


@pytest.mark.parametrize(
    ("lake", "named"),
    [
        ("s3://tides/lake", "s3://tides/lake"),
        ("s3://eva:secret@tides/lake?token=secret", "s3://tides/lake"),
        ("/var/lake", "/var/lake"),
    ],
)
def test_the_lake_is_named_without_what_lets_one_in(lake: str, named: str) -> None:
    assert _named(lake) == named


def test_a_projects_code_has_one_hash_wherever_it_lies_and_data_beside_it_has_none(
    harbour: Path, tmp_path: Path
) -> None:
    here, there = (Path(shutil.copytree(harbour, tmp_path / name)) for name in ("here", "there"))
    assert code_of(here).sha256 == code_of(there).sha256 != ""
    (there / "data").mkdir()
    (there / "data" / "ships.parquet").write_bytes(b"rows")
    (there / "__pycache__").mkdir(exist_ok=True)
    (there / "__pycache__" / "models.py").write_text("")
    assert code_of(there).sha256 == code_of(here).sha256
    (there / "models.py").write_text("def build(task, params, seed): ...\n")
    assert code_of(there).sha256 != code_of(here).sha256
    assert code_of(None).sha256 == code_of(tmp_path / "gone" / "x").commit == ""


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Eva", "-c", "user.email=eva", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to make a repository with")
def test_the_commit_is_read_without_git_on_a_branch_packed_detached_and_in_a_worktree(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    project = repository / "projects" / "tides"
    project.mkdir(parents=True)
    assert code_of(project).commit == ""
    git(tmp_path, "init", "-q", str(repository))
    assert code_of(project).commit == "", "nothing is committed"
    (project / "loop.yaml").write_text("loop: tides\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "a loop")
    commit = git(repository, "rev-parse", "HEAD")
    assert code_of(project).commit == commit
    git(repository, "pack-refs", "--all")
    assert code_of(project).commit == commit
    git(repository, "worktree", "add", "-q", "-b", "spring", str(tmp_path / "spring"))
    assert code_of(tmp_path / "spring" / "projects" / "tides").commit == commit
    git(repository, "checkout", "-q", "--detach")
    assert code_of(project).commit == commit


def test_a_manifest_of_a_release_before_has_no_recipe_and_is_read() -> None:
    import msgspec

    from millstream.contracts.package import Manifest

    kept = Path(__file__).parents[3] / "tests" / "contracts" / "releases" / "0.1.0" / "package" / "manifest.json"
    assert "recipe" not in json.loads(kept.read_text())["lineage"]
    assert msgspec.json.decode(kept.read_bytes(), type=Manifest).lineage.recipe is None
