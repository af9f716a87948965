"""One loop in a few lines, from what the trainer says of it; what an older trainer does not say is left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

View = Mapping[str, Any]
"""A loop as the trainer's GET /v1/loops has it."""


def lines_of(loop: View) -> list[str]:
    """Champion, run and decision in the first line; under it what is under way, held, behind, or waits for a person."""
    champion, running, decision = loop.get("champion"), loop.get("running"), loop.get("last_decision")
    due = loop.get("next_schedule")
    first = [
        f"{loop['loop']}: " + (f"champion is version {champion['version']}" if champion else "no model yet"),
        _run(running) if running else "",
        f"last decision: {decision['decision']} ({decision['cause']}), {decision['reason']}" if decision else "",
        _schedule(due, loop.get("stream_time")) if due else "",
    ]
    return ["; ".join(filter(None, first)), *(f"  {line}" for line in _more(loop))]


def _run(running: View) -> str:
    phase = f", phase {running['phase']}" if running.get("phase") else ""
    attempt = f", attempt {running['attempt']}" if running.get("attempt", 1) > 1 else ""
    return f"run {running['run']} under way{phase}{attempt}"


def _schedule(due: str, now: str | None) -> str:
    """Stream time may have passed it: a trial is under way, the cooldown lasts, or the day's labels are not counted yet."""
    passed = now is not None and datetime.fromisoformat(due) <= datetime.fromisoformat(now)
    return f"schedule due since {due}" if passed else f"next schedule {due}"


def _more(loop: View) -> list[str]:
    found = []
    if trial := loop.get("trial"):
        share = f" {trial['share']:.0%}" if trial.get("share") else ""
        found.append(f"trial: version {trial['version']}, {trial['step']}{share}{_compared(trial)}")
    if promoting := loop.get("promoting"):
        waits = ", ".join(promoting["waits_for"]) or "nobody"
        found.append(f"promoting: version {promoting['version']}, waits for {waits}")
    if loop.get("watch_until"):
        watch = loop.get("watch") or {}
        against = f" beside version {watch['against']}" if watch.get("against") else ""
        found.append(f"watch: until {loop['watch_until']}{against}{_compared(watch)}")
    if waiting := loop.get("waiting"):
        found.append(f"waiting: {waiting['reason']} (until {waiting['until']})")
    if loop.get("frozen"):
        found.append(f"frozen: {loop['frozen']}; go on with: millstream unfreeze {loop['loop']}")
    if loop.get("pinned"):
        found.append(f"pinned: version {loop['pinned']}; go on with: millstream unpin {loop['loop']}")
    for run in loop.get("pending") or []:
        until = f" until {run['expires']}" if run.get("expires") else ""
        found.append(f"pending{until}: {run['reason']}; go: millstream approve {loop['loop']} {run['run']}")
    if loop.get("broken_since"):
        found.append(f"broken data since {loop['broken_since']}: retrains wait")
    return found + _replicas(loop)


def _compared(one: View) -> str:
    """The comparison, as far as drift has judged it."""
    if not one.get("finding"):
        return ", no comparison yet" if "finding" in one else ""
    if not one.get("pairs"):
        return f", {one['finding']}, no label yet"
    interval = f"({one['low']:+.5f} to {one['high']:+.5f})"
    return f", {one['finding']} after {one['pairs']:,} pairs: {one['difference']:+.5f} {interval}"


def _replicas(loop: View) -> list[str]:
    """Who does not obey the newest state; nothing when all do."""
    replicas = loop.get("replicas") or []
    found = []
    for one in replicas:
        if one.get("refused"):
            found.append(f"replica {one['instance']} refuses revision {one['refused']}: {one['reason']}")
        elif one.get("behind"):
            found.append(f"replica {one['instance']} is behind: revision {one['revision']} of {loop.get('revision')}")
    return found
