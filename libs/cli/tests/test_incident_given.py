"""A model that was made elsewhere, in the story of its run."""

from __future__ import annotations

import pytest

from millstream.contracts.events import Cause, Decision, GivenModel, Outcome, Step
from millstream_cli.loop_events import loop_of
from millstream_cli.telling import timeline
from millstream_cli.why import pick

from .made_events import LOOP, Journal, day, first_model, ref
from .test_loop_report import report


@pytest.mark.parametrize(
    ("remote", "told"), [("", "was given as a graph"), ("https://gpu/v2/models/x", "runs at https://gpu")]
)
def test_a_model_that_was_made_elsewhere_is_judged_and_not_trained(remote: str, told: str) -> None:
    journal = Journal()
    first_model(journal)
    wish = journal.retrain("wish-1")
    given = GivenModel(sha256="ab" * 32, remote=remote, learned_until=day(3))
    decided = journal.decided(10, wish, Decision.ACCEPTED, Cause.MANUAL, run="run2", given=given)
    journal.trained(10, "2", Outcome.REJECTED, cause=decided)
    loop = loop_of(journal.told, LOOP)
    incident = pick(loop, None)
    [training] = [one for one in timeline(loop, incident) if one.what == "training"]
    assert training.text.startswith(f"version 2 {told}")
    assert ", had learned until 2013-06-04 00:00, judged in 2.5 s, rejected by the gate: " in training.text
    assert "trained" not in training.text


def test_the_report_has_what_a_person_said_of_a_model_that_was_made_elsewhere() -> None:
    journal = Journal()
    first_model(journal)
    assert report(journal).learned_until == ref("1").at
    wish = journal.retrain("wish-1")
    given = GivenModel(sha256="ab" * 32, learned_until=day(-70))
    journal.decided(10, wish, Decision.ACCEPTED, Cause.MANUAL, run="run2", given=given)
    journal.trained(10, "2", Outcome.PROMOTED)
    journal.state(10, Step.CHAMPION, "2")
    found = report(journal)
    assert (found.learned_until, found.age_days) == (day(-70), 80)
