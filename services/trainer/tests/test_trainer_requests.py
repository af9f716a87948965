"""What others say on `millstream-retrain`: what is none of their business is a dead letter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Cause, RetrainDecided
from millstream.runtime.causes import Causes
from millstream_trainer.subscribers import ASKED, hear_batch

from .test_trainer_skew import batch, record
from .trainer_kit import Office


@pytest.mark.parametrize("cause", Cause)
async def test_nobody_asks_in_the_name_of_drift_or_of_the_clock(tides: Any, until: Any, cause: Cause) -> None:
    office = Office(tides.rules)
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    asked = msgspec.structs.replace(tides.wish("billing", 11), cause=cause)
    rejected = await hear_batch(office.trainer, batch(record(asked, asked.id)), Causes())
    decided = [one for one in office.announcer.of(RetrainDecided) if one.request == "billing"]
    if cause in ASKED:
        assert not rejected
        assert [one.cause for one in decided] == [cause]
    else:
        [letter] = rejected
        assert (letter.error.reason, decided) == ("invalid_event", [])
        assert f"cause {cause.value} is not asked for; write one of alert, manual, system" in str(letter.error)


async def test_a_record_without_a_type_is_a_dead_letter(tides: Any) -> None:
    asked = record(tides.wish("billing", 11), "billing")
    asked.headers = [header for header in asked.headers if header[0] != "ce_type"]
    [letter] = await hear_batch(Office(tides.rules).trainer, batch(asked), Causes())
    assert letter.error.reason == "bad_headers"
