"""Broken data: which field, what is wrong with it, who sends it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Finding, PredictionServed, WindowJudged, WindowKind
from millstream.contracts.package import Origin
from millstream.contracts.times import HOUR
from millstream_drift.domain.baseline import baseline_of

from .drift_kit import JUNE, LOOP, Desk, Topics, World, manifest, reference

AIRLINE, DESK = "urn:airline", "urn:desk"


def sent(world: World, **changes: Any) -> list[Any]:
    """Every second flight is announced by the desk, whose events have these changes; the others by the airline."""
    said: list[Any] = []
    for flight, (topic, event, at) in enumerate(world.said):
        if isinstance(event, PredictionServed):
            by_desk = flight % 2 == 0
            inputs = event.inputs | changes if by_desk else event.inputs
            event = msgspec.structs.replace(event, inputs=inputs, producer=DESK if by_desk else AIRLINE)
        said.append((topic, event, at))
    return said


async def first(said: list[Any], **drift: Any) -> WindowJudged:
    desk = Desk(Topics().add(said), **drift)
    known = msgspec.structs.replace(
        manifest("1"), origins={"origin__mean_1h": Origin(stream="flights-departed", field="dep_delay")}
    )
    desk.models.known[LOOP, "1"] = baseline_of(known, reference())
    await (await desk.start()).read_all()
    return next(one for one in desk.verdicts if one.kind is WindowKind.INPUTS)


async def test_a_field_that_one_producer_leaves_out_names_that_producer() -> None:
    verdict = await first(sent(World().hours(JUNE, 6, labels=False), carrier=None))
    assert verdict.finding is Finding.BROKEN_DATA
    (field,) = verdict.broken
    assert (field.column, field.stream, field.field) == ("carrier", "flights-scheduled", "carrier")
    assert field.producer == DESK
    assert field.detail == "50% missing, 0% in training"
    assert verdict.reason == "carrier: 50% missing, 0% in training (flights-scheduled.carrier, sent by urn:desk)"


async def test_unknown_categories_are_named() -> None:
    verdict = await first(sent(World().hours(JUNE, 6, labels=False), carrier="XX"))
    (field,) = verdict.broken
    assert field.detail == "50% unknown categories, 0% in training, most of them 'XX'"
    assert field.producer == DESK
    carrier = next(one for one in verdict.columns if one.column == "carrier")
    assert (carrier.unknown, carrier.jensen_shannon > 0.3) == (0.5, True)


async def test_what_all_send_has_no_single_sender() -> None:
    verdict = await first(sent(World(carrier="UA").hours(JUNE, 6, labels=False)))
    (field,) = verdict.broken
    assert (field.detail, field.producer) == ("constant (UA), it varied in training", "")


async def test_a_broken_feature_names_the_field_it_is_made_of_and_not_who_asked() -> None:
    verdict = await first(sent(World(nulls=0.9).hours(JUNE, 6, labels=False)))
    (field,) = verdict.broken
    assert (field.column, field.stream, field.field) == ("origin__mean_1h", "flights-departed", "dep_delay")
    assert field.producer == ""
    assert verdict.reason.endswith("(flights-departed.dep_delay)")


async def test_broken_beats_drift() -> None:
    verdict = await first(sent(World(stretch=3.0).hours(JUNE, 6, labels=False), carrier=None))
    assert verdict.effect > 0.2
    assert verdict.finding is Finding.BROKEN_DATA


async def test_a_column_that_nobody_watches_breaks_nothing() -> None:
    said = sent(World().hours(JUNE, 6, labels=False), carrier=None)
    verdict = await first(said, columns=["distance"])
    assert (verdict.finding, verdict.broken) == (Finding.HEALTHY, [])


async def test_important_columns_alone_may_be_watched() -> None:
    """A feature that the model hardly uses falls silent."""
    calm = reference()
    shares = {"distance": 0.5, "carrier": 0.3, "origin__mean_1h": 0.05}
    columns = [msgspec.structs.replace(one, importance=shares[one.name]) for one in calm.columns]
    columns.append(msgspec.structs.replace(columns[0], name="hour", importance=0.15, missing=1.0))
    found = []
    for watched in ("all", "important"):
        desk = Desk(Topics().add(World(nulls=0.9).hours(JUNE, 6, labels=False).said), columns=watched)
        desk.models.known[LOOP, "1"] = baseline_of(manifest("1"), msgspec.structs.replace(calm, columns=columns))
        await (await desk.start()).read_all()
        found.append(desk.verdicts[0].finding)
    assert found == [Finding.BROKEN_DATA, Finding.HEALTHY]


async def test_what_was_constant_as_long_in_training_is_not_broken_and_what_is_stuck_for_longer_is() -> None:
    """Six hours without rain are weather where two of them were the longest in training, seven times as long are not."""
    calm, world = reference(), World(carrier="UA").hours(JUNE, 6, labels=False)
    found = []
    for longest in (2 * HOUR, HOUR // 2):
        columns = [
            msgspec.structs.replace(one, longest_constant=longest) if one.name == "carrier" else one
            for one in calm.columns
        ]
        desk = Desk(Topics().add(world.said), psi=10)
        desk.models.known[LOOP, "1"] = baseline_of(manifest("1"), msgspec.structs.replace(calm, columns=columns))
        await (await desk.start()).read_all()
        found.append((desk.verdicts[0].finding, desk.verdicts[0].reason))
    assert found[0][0] is Finding.HEALTHY
    assert found[1] == (
        Finding.BROKEN_DATA,
        "carrier: constant (UA), it varied in training (flights-scheduled.carrier)",
    )


@pytest.mark.parametrize(("importance", "finding"), [(0.04, Finding.HEALTHY), (0.12, Finding.SUSPECTED)])
async def test_a_column_that_means_next_to_nothing_is_no_drift_however_far_it_moves(
    importance: float, finding: Finding
) -> None:
    """Distances a thousand times as long: no bin of training has any, and a PSI of its own has no largest value."""
    columns = [
        msgspec.structs.replace(one, importance=share)
        for one, share in zip(reference().columns, (importance, 0.2, 0.8 - importance), strict=True)
    ]
    said = [
        (topic, msgspec.structs.replace(event, inputs=event.inputs | {"distance": 500_000 + n}), at)
        for n, (topic, event, at) in enumerate(World().hours(JUNE, 6, labels=False).said)
        if isinstance(event, PredictionServed)
    ]
    desk = Desk(Topics().add(said))
    desk.models.known[LOOP, "1"] = baseline_of(manifest("1"), msgspec.structs.replace(reference(), columns=columns))
    await (await desk.start()).read_all()
    verdict = desk.verdicts[0]
    moved = next(one for one in verdict.columns if one.column == "distance")
    assert moved.psi > 5, "what is told of the column is the whole shift"
    assert moved.psi * moved.importance > 0.2
    assert verdict.finding is finding
    assert f"distance {moved.psi:.2f} (counted as 2.00) × importance {importance:.2f}" in verdict.reason
