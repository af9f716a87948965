"""Who has a run that was offered to all: one at a time, and who was overtaken is heard no more."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from millstream.errors import RetryLater
from millstream_trainer.adapters.claims import Claims, note_of
from millstream_trainer.adapters.run_notes import KEPT, RunNotes
from millstream_trainer.adapters.training_process import Said


@pytest.fixture
def notes(tmp_path: Path) -> RunNotes:
    return RunNotes(str(tmp_path))


@pytest.fixture
def claims(notes: RunNotes) -> Claims:
    return Claims(notes)


def went_silent(claims: Claims, run: str, seconds: float = 61) -> None:
    """Who has the run gave its last sign of life so long ago."""
    file = claims._file(run, claims.token(run))
    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


def test_of_many_that_race_one_has_the_run(claims: Claims) -> None:
    ready = threading.Barrier(8)

    def races(_: int) -> int | None:
        ready.wait()
        return claims.take("r1")

    with ThreadPoolExecutor(8) as pods:
        tokens = list(pods.map(races, range(8)))
    assert sorted(filter(None, tokens)) == [1]
    assert claims.take("r1") is None
    assert claims.take("r2") == 1


def test_a_run_is_taken_from_who_went_silent_and_not_before(claims: Claims) -> None:
    assert claims.take("r1") == 1
    went_silent(claims, "r1", 30)  # the machine may stand still for a while here
    assert claims.take("r1") is None
    went_silent(claims, "r1", 31)
    assert claims.take("r1") == 2


def test_a_sign_of_life_keeps_the_run(claims: Claims) -> None:
    claims.take("r1")
    went_silent(claims, "r1")
    assert claims.beat("r1", 1)
    assert claims.take("r1") is None


def test_who_was_overtaken_is_told_and_its_last_word_is_not_the_runs(claims: Claims, notes: RunNotes) -> None:
    claims.take("r1")
    went_silent(claims, "r1")
    claims.take("r1")
    assert not claims.beat("r1", 1)
    notes.say(note_of("r1", 1), Said(failed="I was asleep"))
    assert claims.ended("r1") is None
    notes.say(note_of("r1", 2), Said(phase="fit"))
    assert claims.said("r1") == Said(phase="fit")
    assert claims.ended("r1") is None
    notes.say(note_of("r1", 2), Said(failed="too few rows"))
    assert claims.ended("r1") == Said(failed="too few rows")


def test_who_calls_a_run_off_has_it_at_once(claims: Claims) -> None:
    claims.take("r1")
    assert claims.seize("r1") == 2
    assert not claims.beat("r1", 1)


def test_claims_go_with_their_notes(claims: Claims, notes: RunNotes) -> None:
    claims.take("r1")
    went_silent(claims, "r1", KEPT + 1)
    notes.sweep()
    assert claims.token("r1") == 0


def test_a_folder_that_is_away_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".runs").write_text("not a folder")
    with pytest.raises(RetryLater):
        Claims(RunNotes(str(tmp_path))).take("r1")
