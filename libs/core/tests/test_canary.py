"""The split of a canary."""

from __future__ import annotations

from millstream.contracts.canary import is_answered_by_challenger, place

ENTITIES = [f"N{number}" for number in range(20_000)]


def test_a_share_holds_that_share_of_the_entities() -> None:
    for share in (0.01, 0.1, 0.5):
        held = sum(is_answered_by_challenger("flight-delay", "8f14e45f", one, share) for one in ENTITIES)
        assert abs(held / len(ENTITIES) - share) < 0.012  # four standard deviations of a fair draw at one half


def test_a_growing_share_keeps_whom_it_has_and_the_bounds_are_nobody_and_all() -> None:
    for one in ENTITIES[:2000]:
        answered = [is_answered_by_challenger("flight-delay", "8f14e45f", one, share) for share in (0, 0.1, 0.5, 1)]
        assert answered == sorted(answered)
        assert (answered[0], answered[-1]) == (False, True)


def test_each_run_draws_anew() -> None:
    first = {one for one in ENTITIES if is_answered_by_challenger("flight-delay", "8f14e45f", one, 0.5)}
    second = {one for one in ENTITIES if is_answered_by_challenger("flight-delay", "c9f0f895", one, 0.5)}

    assert abs(len(first & second) / len(ENTITIES) - 0.25) < 0.015


def test_the_place_of_an_entity_never_changes() -> None:
    """In a rolling update replicas of two releases answer side by side."""
    assert place("flight-delay", "8f14e45f", "N14228") == 0.9569828766249656
