"""May the loop learn again? One decision per request, always with its reason and the numbers behind it.

Everything is counted in stream time, so a year replayed in minutes is decided as the year was. `RULES` are asked in their
order, and the first that has an answer gives the decision. A request that none of them answers may have to wait, for labels or
for the end of quiet hours; what then comes of it is up to the loop's mode.

A person passes the rules that protect from machines, since somebody looked: stale verdicts, broken data, breaker, warm-up,
cooldown, agreement, waiting, mode. Nobody passes the budget (of which runs that failed are no part for her), a trial, a frozen
or a pinned loop.

Skew between online and offline features (`millstream-skew`) is not heard: it asks for nothing, since a run learns from the
lake and no fit mends a tile, and it blocks nothing, since what it says is a sample's and not a fact of the replay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import LEARNED, Cause, Decision, RetrainDecided, RunApproved, Step
from millstream.contracts.times import DAY, from_datetime, to_datetime
from millstream_trainer.domain.ask import Ask, Waiting
from millstream_trainer.domain.hearing import days, elapsed
from millstream_trainer.domain.rules import Mode, Rules
from millstream_trainer.domain.state import BROKEN, MATURED, REPLACED, LoopState, run_name

Answer = tuple[Decision, str]
Rule = Callable[[LoopState, Ask, Rules], Answer | None]

WAIT_FOR_LABELS = frozenset({Cause.DRIFT, Cause.ESTIMATE})
"""Causes that come before the labels do; a drop of performance was seen by labels that are there."""
WAITS = "waits for a person's word: "
MOST_QUIET = 7 * DAY
"""After the end of quiet hours. Drift says something at each end, so this is a stream that stood still for a month, or a drift
that does not know these hours: nobody is to wait behind it for ever."""


def decide(state: LoopState, ask: Ask, rules: Rules) -> RetrainDecided | Waiting | None:
    """The one decision on `ask`, or what it waits for; None when the journal holds it or it waits already."""
    waits = state.waiting is not None and state.waiting.ask.request == ask.request and ask.asked_at is None
    if ask.request in state.answered or waits:
        return None
    for rule in RULES:
        answer = rule(state, ask, rules)
        if answer is not None:
            return _decided(state, ask, rules, *answer)
    ask = _with_who_agreed(state, ask, rules)
    waiting = None if ask.by_person else _waits(state, ask, rules)
    if waiting is not None:
        return waiting
    if ask.by_person or rules.mode is Mode.AUTO:
        return _decided(
            state, ask, rules, Decision.ACCEPTED, ask.why + _once_more(state, ask) + _though_broken(state, ask)
        )
    if rules.mode is Mode.SUGGEST:
        return _decided(state, ask, rules, Decision.SUGGESTED, f"retrain.mode is suggest, nothing runs: {ask.why}")
    return _decided(state, ask, rules, Decision.PENDING, f"{WAITS}{ask.why}")


def overdue(state: LoopState, at: int, rules: Rules) -> RetrainDecided | Waiting | None:
    """What stream time `at` decides by itself: a pending run that nobody approved, or the request that waited. One a call."""
    for run, asked in sorted(state.pending.items()):
        if asked.expires is not None and at >= from_datetime(asked.expires):
            request = derived_id("expired", state.loop, run)
            return _answered(state, asked, request, Decision.EXPIRED, _expired(state, run, asked), at)
    waiting = state.waiting
    if waiting is None or at <= waiting.ask.at:
        return None
    ask = replace(waiting.ask, at=at, asked_at=waiting.ask.asked_at or waiting.ask.at)
    if waiting.matured is not None and (state.matured or 0) >= waiting.matured:
        return decide(state, replace(ask, ripe=True), rules)
    if at < waiting.until:
        return None
    if waiting.matured is not None:
        short = waiting.matured - (state.matured or 0)
        reason = f"{short} of {rules.mature} labels have not matured within {days(rules.mature_longest)}: {ask.why}"
    elif not rules.quiet.holds(at):
        return decide(state, ask, rules)
    elif at < waiting.until + MOST_QUIET:
        return None
    else:
        reason = f"nothing was heard outside of quiet hours within {days(MOST_QUIET)}: {ask.why}"
    return _decided(state, ask, rules, Decision.DECLINED, reason)


def approve(state: LoopState, event: RunApproved, rules: Rules) -> RetrainDecided | None:
    """The decision on a person's go; None when the journal holds it. What cannot start now waits on for another go."""
    if event.id in state.answered:
        return None
    asked, at = state.pending.get(event.run), state.stream_time or 0
    if asked is None:
        return RetrainDecided(
            id=derived_id("decided", event.loop, event.id),
            loop=event.loop,
            request=event.id,
            cause=Cause.MANUAL,
            decision=Decision.DECLINED,
            reason=not_pending(state, event.run),
            at=to_datetime(at),
            run=event.run,
        )
    why = asked.reason.removeprefix(WAITS)
    go = Ask(request=event.id, loop=event.loop, cause=Cause.MANUAL, at=max(at, from_datetime(asked.at)), why=why)
    for rule in (_held_by_a_person, _joins_what_is_under_way, _within_budget):
        answer = rule(state, go, rules)
        if answer is not None:
            reason = f"{event.by} approved it, but {answer[1]}{AGAIN} {asked.run} again when that is over"
            until = "" if asked.expires is None else f", it waits until {asked.expires:%Y-%m-%d %H:%M}"
            return _answered(state, asked, event.id, Decision.DECLINED, reason + until, go.at)
    said, broken = f": {event.reason}" if event.reason else "", _though_broken(state, go, asked_by=asked.cause)
    return _answered(state, asked, event.id, Decision.ACCEPTED, f"{event.by} approved it{said}{broken}", go.at)


AGAIN = "; approve run"
"""What follows it is what to do, no more of the reason."""


def _expired(state: LoopState, run: str, asked: RetrainDecided) -> str:
    """Why a run that waited for a word did not start in its time."""
    refused, until = state.refused.get(run), f"{asked.expires:%Y-%m-%d %H:%M}"
    if refused is None:
        return f"nobody approved run {run} by {until}: {asked.reason}"
    why = refused.reason.partition(AGAIN)[0]
    return f"run {run} did not start by {until}: on {refused.at:%Y-%m-%d %H:%M} {why}"


_ENDS = {Step.CHAMPION: "promoted", Step.REJECTED: "rejected in its trial", Step.ROLLED_BACK: "rolled back"}
"""Where a model stands says more than how its run ended: that it went on trial."""


def not_pending(state: LoopState, run: str) -> str:
    """Why a run cannot be approved (any more)."""
    known = state.run(run)
    if known is not None:
        if known.outcome is None:
            return f"run {run} is under way"
        stands = None if known.step is None else _ENDS.get(known.step)
        return f"run {run} has ended: {stands or known.outcome.value.replace('_', ' ')}"
    if run in state.expired:
        return f"run {run} expired; ask for a retrain"
    waiting = ", ".join(sorted(state.pending)) or "none"
    return f"no run {run[:100]!r} waits for approval; waiting: {waiting}"


def _the_first_model(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if ask.cause is Cause.FIRST_MODEL and state.champion is not None:
        return Decision.DECLINED, f"there is a model already, version {state.champion.version}"
    return None


def _listed(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if ask.cause is not Cause.FIRST_MODEL and ask.cause not in rules.causes:
        return Decision.DECLINED, f"retrain.on does not list {ask.cause.value}: {ask.why}"
    return None


def _of_whole_data(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if ask.broken is None:
        return None
    if ask.broken in LEARNED:
        return Decision.DECLINED, f"broken data: {ask.why}; retrains wait for whole {LEARNED[ask.broken]}"
    return Decision.DECLINED, f"broken data: {ask.why}; no model reads it, so other retrains do not wait"


def _in_stream_time(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if state.stream_time is None:
        return Decision.DECLINED, "nothing has been heard of this loop yet, so there is no stream time to train at"
    return None


def _held_by_a_person(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    models = state.models
    if models is not None and models.pinned:
        return Decision.DECLINED, f"version {models.pinned} is pinned, unpin it first: {ask.why}"
    if models is not None and models.frozen:
        return Decision.DECLINED, f"the loop is frozen ({models.frozen}), unfreeze it first: {ask.why}"
    return None


def _joins_what_is_under_way(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    # What is under way fits a model of its own: it cannot stand for one that was given.
    joins, again = (Decision.COALESCED, "") if ask.given is None else (Decision.DECLINED, ", register it after that")
    if state.running is not None:
        return joins, f"run {state.running.name} is under way{again}: {ask.why}"
    if state.challenger is not None:
        return joins, f"version {state.challenger.version} is on trial{again}: {ask.why}"
    return None


def _joins_what_is_asked(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if ask.by_person:
        return None
    last = state.last_run
    if last is not None and ask.at <= last.at:
        # Whether that run has ended by now is a matter of wall time; by stream time both were asked at once.
        return Decision.COALESCED, f"run {last.name} already looked up to then: {ask.why}"
    if state.pending:
        return Decision.COALESCED, f"run {min(state.pending)} waits for a person's word: {ask.why}"
    if state.waiting is not None and state.waiting.ask.request != ask.request:
        return Decision.COALESCED, f"another request waits already ({state.waiting.reason}): {ask.why}"
    return None


def _of_the_champion(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    champion = state.champion
    if ask.by_person or ask.version is None or champion is None or ask.version == champion.version:
        return None
    return Decision.DECLINED, f"the verdict is about version {ask.version}, version {champion.version} answers now"


def _with_whole_data(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if ask.by_person or not state.broken or ask.cause is Cause.FIRST_MODEL:
        return None
    what, since = _broken(state)
    return Decision.DECLINED, f"{since}; waiting for whole {what}: {ask.why}"


def _below_the_breaker(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    rejected = state.rejected_in_a_row
    if ask.by_person or rejected < rules.breaker:
        return None
    said = f"{rejected} challengers in a row were rejected, ask for a retrain by hand when the cause is found"
    return Decision.DECLINED, f"{said}: {ask.why}"


def _warmed_up(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if ask.by_person or state.promoted_at is None or ask.at - state.promoted_at >= rules.warm_up:
        return None
    since = elapsed(ask.at - state.promoted_at)
    return Decision.DECLINED, f"{since} since the last promotion, the warm-up is {days(rules.warm_up)}: {ask.why}"


def _cooled_down(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    last = state.last_run
    if ask.by_person or last is None or ask.at - last.at >= rules.cooldown:
        return None
    since = elapsed(ask.at - last.at)
    return Decision.DECLINED, f"{since} since the last run, the cooldown is {days(rules.cooldown)}: {ask.why}"


def _within_budget(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    since = ask.at - rules.budget_period
    used = state.runs_after(since, by_person=ask.by_person)
    if used < rules.budget_runs:
        return None
    said = f"{used} runs within {days(rules.budget_period)}, the budget is {rules.budget_runs}"
    failed = used - state.runs_after(since, by_person=True)
    if failed:
        said += (
            f"; {failed} of them failed and stop counting with the first that does not, ask by hand when it is mended"
        )
    return Decision.DECLINED, f"{said}: {ask.why}"


def _agreed(state: LoopState, ask: Ask, rules: Rules) -> Answer | None:
    if ask.by_person or ask.cause is Cause.FIRST_MODEL or rules.agree <= 1:
        return None
    agree = sorted(cause.value for cause in _agreeing(state, ask, rules))
    if len(agree) >= rules.agree:
        return None
    said = f"only {', '.join(agree)} asked within {days(rules.within)}"
    return Decision.DECLINED, f"{said}, retrain.agree wants {rules.agree} causes: {ask.why}"


RULES: tuple[Rule, ...] = (
    _the_first_model,
    _listed,
    _of_whole_data,
    _in_stream_time,
    _held_by_a_person,
    _joins_what_is_under_way,
    _joins_what_is_asked,
    _of_the_champion,
    _with_whole_data,
    _below_the_breaker,
    _warmed_up,
    _cooled_down,
    _within_budget,
    _agreed,
)
"""In this order; the reason of the first that has an answer is the reason that is given."""


def _agreeing(state: LoopState, ask: Ask, rules: Rules) -> dict[Cause, int]:
    """Causes that asked since the last run, promotion and rollback, and within `rules.within`, and when; this one included."""
    last = state.last_run
    after = max(ask.at - rules.within, last.at if last is not None else 0, state.champion_at or 0)
    machines = rules.causes - {Cause.MANUAL}
    return {cause: at for cause, at in state.asked.items() if cause in machines and at > after} | {ask.cause: ask.at}


def _once_more(state: LoopState, ask: Ask) -> str:
    """Said to a person who asks at the time of the last run. It runs: whether she has changed the loop's file since, or code,
    she alone knows."""
    last = state.last_run
    if not ask.by_person or last is None or ask.at > last.at or ask.given is not None or last.given is not None:
        return ""
    return f" (run {last.name} looked up to then as well: where nothing was changed since, this makes the same model)"


def _though_broken(state: LoopState, ask: Ask, *, asked_by: Cause | None = None) -> str:
    """Said to a person who has a run made while something is broken. `asked_by`: what asked for the run that she approves."""
    if not ask.by_person or ask.given is not None or not state.broken:
        return ""
    takes = "learns from them as they are" if asked_by in (None, Cause.MANUAL) else "leaves out what is known to be"
    return f" ({_broken(state)[1]}; this run {takes})"


def _broken(state: LoopState) -> tuple[str, str]:
    """What is broken, and a clause that says since when."""
    kind, since = min(state.broken.items())
    return LEARNED[kind], f"{LEARNED[kind]} are broken since {to_datetime(since):%Y-%m-%d %H:%M}"


def _with_who_agreed(state: LoopState, ask: Ask, rules: Rules) -> Ask:
    """Says in its words which other causes asked, and when, where the loop wants several. A request that waited has it."""
    if ask.by_person or ask.cause is Cause.FIRST_MODEL or rules.agree <= 1 or ask.asked_at is not None:
        return ask
    others = {cause: at for cause, at in _agreeing(state, ask, rules).items() if cause is not ask.cause}
    said = ", ".join(f"{cause.value} of {to_datetime(at):%Y-%m-%d %H:%M}" for cause, at in sorted(others.items()))
    return replace(ask, why=f"{ask.why}; agreed with {said}")


def _waits(state: LoopState, ask: Ask, rules: Rules) -> Waiting | None:
    if rules.mature and ask.cause in WAIT_FOR_LABELS and not ask.ripe:
        reason = f"{rules.mature} labels have to mature first: {ask.why}"
        enough = (state.matured or 0) + rules.mature
        return Waiting(ask=ask, reason=reason, until=ask.at + rules.mature_longest, matured=enough)
    until = rules.quiet.until(ask.at)
    if until is None:
        return None
    return Waiting(ask=ask, reason=f"quiet hours until {to_datetime(until):%Y-%m-%d %H:%M} UTC: {ask.why}", until=until)


def _decided(state: LoopState, ask: Ask, rules: Rules, decision: Decision, reason: str) -> RetrainDecided:
    last, runs = state.last_run, decision in (Decision.ACCEPTED, Decision.PENDING)
    numbers = {
        "runs_in_period": float(state.runs_after(ask.at - rules.budget_period, by_person=ask.by_person)),
        "budget": float(rules.budget_runs),
        "rejected_in_a_row": float(state.rejected_in_a_row),
        "breaker": float(rules.breaker),
    }
    if last is not None:
        numbers["days_since_last_run"] = round((ask.at - last.at) / DAY, 4)
    if state.matured is not None:
        numbers[MATURED] = float(state.matured)
    if ask.asked_at is not None:
        numbers["days_waited"] = round((ask.at - ask.asked_at) / DAY, 4)
    if rules.agree > 1:
        numbers["causes"] = float(len(_agreeing(state, ask, rules)))
    if ask.broken is not None:
        numbers[BROKEN] = 1.0
    if _of_the_champion(state, ask, rules) is not None:
        numbers[REPLACED] = 1.0
    return RetrainDecided(
        id=derived_id("decided", ask.loop, ask.request),
        loop=ask.loop,
        request=ask.request,
        cause=ask.cause,
        decision=decision,
        reason=reason,
        at=to_datetime(ask.at),
        run=run_name(ask.loop, ask.request) if runs else None,
        numbers=numbers,
        expires=to_datetime(ask.at + rules.expires) if decision is Decision.PENDING else None,
        changed_at=ask.changed_at if runs else None,
        given=ask.given if runs else None,
    )


def _answered(
    state: LoopState, asked: RetrainDecided, request: str, decision: Decision, reason: str, at: int
) -> RetrainDecided:
    """What came of a pending run; `request` is the approval's, not the verdict's, which was answered by then."""
    return RetrainDecided(
        id=derived_id("decided", asked.loop, request),
        loop=asked.loop,
        request=request,
        cause=asked.cause,
        decision=decision,
        reason=reason,
        at=to_datetime(at),
        run=asked.run,
        numbers={} if state.matured is None else {MATURED: float(state.matured)},
        changed_at=asked.changed_at,
        given=asked.given,
    )
