"""A step in words: what a person held, and who answers again."""

from __future__ import annotations

import msgspec
import pytest

from millstream.contracts.events import ModelState, RolloutMoved, Step
from millstream_cli.steps import held, moved

from .made_events import LOOP, day, ref

STATE = ModelState(
    id="s", loop=LOOP, revision=3, step=Step.CHAMPION, champion=ref("1"), challenger=None, previous=None, reason="",
    at=day(20), since=day(10),
)  # fmt: skip
STAYS = RolloutMoved(
    id="m", loop=LOOP, revision=3, run="run1", version="1", step=Step.CHAMPION, before=Step.CHAMPION, share=0.0,
    reason="", at=day(20), by="Ada",
)  # fmt: skip


@pytest.mark.parametrize(
    ("led_to", "by", "words"),
    [
        ({"frozen": "Ada: holiday"}, "Ada", "version 1 stays, frozen"),
        ({"pinned": "1"}, "Ada", "version 1 stays, pinned"),
        ({"pinned": "1", "since": day(20)}, "Ada", "version 1 answers again, pinned"),
        ({}, "Ada", "version 1 stays, held no more"),
        ({}, "", "version 1 stays"),
    ],
)
def test_what_stays_is_told_with_what_holds_it(led_to: dict[str, object], by: str, words: str) -> None:
    state = msgspec.structs.replace(STATE, **led_to)
    step = msgspec.structs.replace(STAYS, by=by, led_to=state)
    assert moved(step) + held(step) == words
