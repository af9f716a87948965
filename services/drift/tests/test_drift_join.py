"""Questions and labels against a recount that keeps everything and looks at all pairs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream_drift.domain.events import Label, Question, by_prediction
from millstream_drift.domain.join import LATE, MATURED, Join, JoinState

WITHIN = 10


def question(time: int, key: str, id: str) -> Question:
    return Question(time, id, key, "1", {"probability": 0.5}, ())


events = st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.sampled_from("abcde")), max_size=40)


@given(events)
def test_every_question_matures_or_expires_and_every_label_is_counted(drawn: list[tuple[bool, int, str]]) -> None:
    ordered = sorted((time, not ask, key, n) for n, (ask, time, key) in enumerate(drawn))
    join = Join(WITHIN)
    matured = asked = labels = 0
    for time, is_label, key, n in ordered:
        join.advance(time)
        if is_label:
            labels += 1
            found = join.tell(Label(time, f"l{n}", key, True))
            matured += sum(one.state == MATURED for one in found)
            assert all(one.state in (MATURED, LATE) for one in found)
        else:
            asked += 1
            new, label = join.ask(question(time, key, f"q{n}"))
            assert new is not None
            assert label is None
    join.advance(1_000)
    counts = join.counts
    assert (counts.matured, counts.matured + counts.expired, join.pending) == (matured, asked, 0)
    # Naive: a question matures when any label of its key is known within its time.
    expected = sum(
        any(t <= at <= t + WITHIN and k == key for at, label, k, _ in ordered if label)
        for t, label, key, _ in ordered
        if not label
    )
    assert counts.matured == expected
    used = labels - counts.late - counts.orphaned - counts.duplicated
    assert 0 <= used <= counts.matured
    assert not join._asked
    assert not join._told
    assert join.state() == JoinState(join.clock, counts)


@given(events, st.integers(0, 40))
def test_a_restart_anywhere_changes_nothing(drawn: list[tuple[bool, int, str]], cut: int) -> None:
    ordered = sorted((time, not ask, key, n) for n, (ask, time, key) in enumerate(drawn))

    def run(restart: int | None) -> JoinState:
        join = Join(WITHIN)
        for step, (time, is_label, key, n) in enumerate(ordered):
            if step == restart:
                join = Join(WITHIN, join.state())
            join.advance(time)
            if is_label:
                join.tell(Label(time, f"l{n}", key, True))
            else:
                join.ask(question(time, key, f"q{n}"))
        return join.state()

    assert run(cut) == run(None)


def test_memory_is_bounded_and_what_is_forgotten_is_counted() -> None:
    join = Join(WITHIN, capacity=100)
    for n in range(500):
        join.ask(question(0, f"key-{n}", f"q{n}"))
    assert (join.pending, join.counts.evicted) == (100, 400)
    for n in range(500):
        join.tell(Label(1, f"l{n}", f"stranger-{n}", True))
    assert len(join.state().waiting) + len(join.state().told) == 100


def test_a_label_that_names_its_prediction_matures_that_one_alone() -> None:
    join = Join(WITHIN)
    for id in ("first", "second"):
        join.ask(question(0, "UA-1", id))

    [asked] = join.tell(Label(3, "l1", by_prediction("second"), True))
    assert (asked.id, asked.state, join.pending) == ("second", MATURED, 1)
    assert join.tell(Label(4, "l1", by_prediction("second"), True)) == []
    assert [one.id for one in join.tell(Label(5, "l2", "UA-1", False))] == ["first"]
    assert (join.counts.matured, join.counts.duplicated) == (2, 1)


def test_a_label_that_comes_before_its_prediction_waits_for_it_over_a_restart() -> None:
    join = Join(WITHIN)
    join.advance(2)
    assert join.tell(Label(2, "l1", by_prediction("q"), True)) == []
    join = Join(WITHIN, join.state())
    asked, label = join.ask(question(1, "UA-1", "q"))
    assert asked is not None
    assert (asked.state, label) == (MATURED, Label(2, "l1", by_prediction("q"), True))
    join.advance(100)
    assert (join.counts.matured, join.counts.orphaned, join._answered) == (1, 0, {})


def test_a_label_of_a_prediction_that_nobody_made_is_an_orphan() -> None:
    join = Join(WITHIN)
    join.tell(Label(2, "l1", by_prediction("nobody"), True))
    join.advance(100)
    assert join.counts.orphaned == 1
