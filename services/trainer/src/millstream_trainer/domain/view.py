"""One loop as JSON, for people and for `millstream status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from millstream.contracts.events import ReplicaObeyed
from millstream.contracts.times import to_rfc3339
from millstream_trainer.domain.rollout import watched
from millstream_trainer.domain.rules import Rules
from millstream_trainer.domain.state import LoopState


def view(state: LoopState, rules: Rules, replicas: Sequence[ReplicaObeyed]) -> dict[str, Any]:
    """Times are RFC 3339; what there is not is null or empty."""
    running, last, models = state.running, state.last_run, state.models
    due = None if rules.schedule is None or last is None else last.at + rules.schedule
    watch = watched(state, state.stream_time or 0, rules.rollout)
    return {
        "loop": state.loop,
        "stream_time": _time(state.stream_time),
        "revision": state.revision,
        "champion": msgspec.to_builtins(state.champion),
        "previous": None if models is None else msgspec.to_builtins(models.previous),
        "trial": _trial(state),
        "watch_until": None if watch is None else to_rfc3339(watch[0]),
        "watch": _watch(state),
        "promoting": _promoting(state, replicas),
        "frozen": "" if models is None else models.frozen,
        "pinned": "" if models is None else models.pinned,
        "replicas": [_replica(one, state.revision) for one in replicas],
        "running": None
        if running is None
        else {
            "run": running.name,
            "cause": running.cause.value,
            "attempt": running.attempt,
            "at": to_rfc3339(running.at),
        },
        "pending": [
            {
                "run": run,
                "cause": asked.cause.value,
                "reason": asked.reason,
                "at": msgspec.to_builtins(asked.at),
                "expires": msgspec.to_builtins(asked.expires),
            }
            for run, asked in sorted(state.pending.items())
        ],
        "waiting": None
        if state.waiting is None
        else {
            "request": state.waiting.ask.request,
            "cause": state.waiting.ask.cause.value,
            "reason": state.waiting.reason,
            "until": to_rfc3339(state.waiting.until),
        },
        "last_decision": msgspec.to_builtins(state.last_decision),
        "next_schedule": _time(due),
        "runs": len(state.runs),
        "rejected_in_a_row": state.rejected_in_a_row,
        "broken_since": _time(min(state.broken.values(), default=None)),
    }


def _trial(state: LoopState) -> dict[str, Any] | None:
    models = state.models
    if models is None or models.challenger is None:
        return None
    return {
        "version": models.challenger.version,
        "run": models.challenger.run,
        "step": models.step.value,
        "share": models.share,
        "since": msgspec.to_builtins(models.since),
        "pairs_before": models.pairs,
        **_comparison(state, models.challenger.version, watch=False),
    }


def _watch(state: LoopState) -> dict[str, Any] | None:
    models = state.models
    if models is None or models.watch_until is None or models.champion is None or models.previous is None:
        return None
    compared = _comparison(state, models.champion.version, watch=True)
    return {"version": models.champion.version, "against": models.previous.version, **compared}


def _promoting(state: LoopState, replicas: Sequence[ReplicaObeyed]) -> dict[str, Any] | None:
    """A promotion that waits for the word of replicas."""
    models = state.models
    if models is None or models.champion is None or not models.promoting:
        return None
    waits = [one.instance for one in replicas if one.revision < models.promoting]
    return {"version": models.champion.version, "revision": models.promoting, "waits_for": waits}


def _comparison(state: LoopState, version: str, *, watch: bool) -> dict[str, Any]:
    """The last word of drift on these two, or nothing yet."""
    judged = state.judged.get(watch)
    if judged is None or judged.version != version:
        return {"pairs": 0, "difference": None, "low": None, "high": None, "finding": None, "checks": []}
    names = ("pairs", "difference", "low", "high", "questions", "answered", "reason")
    return {
        **{name: getattr(judged, name) for name in names},
        "finding": judged.finding.value,
        "judged_at": msgspec.to_builtins(judged.at),
        "checks": msgspec.to_builtins(judged.checks),
    }


def _replica(one: ReplicaObeyed, revision: int) -> dict[str, Any]:
    return {
        "instance": one.instance,
        "revision": one.revision,
        "version": one.version,
        "behind": max(0, revision - one.revision),
        "refused": one.refused,
        "reason": one.reason,
    }


def _time(micros: int | None) -> str | None:
    return None if micros is None else to_rfc3339(micros)
