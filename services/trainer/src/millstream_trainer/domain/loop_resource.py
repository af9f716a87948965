"""A loop as a resource of Kubernetes: what it says becomes a loop file, what trainer knows of the loop its status."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from millstream.contracts.events import Decision, Finding
from millstream.contracts.times import to_rfc3339
from millstream_trainer.domain.state import LoopState

LONGEST = 2000
"""Characters of a condition's message."""
WELL = frozenset((Finding.HEALTHY, Finding.CLEARED))

Status = dict[str, Any]


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    generation: int = 0


class LoopResource(msgspec.Struct, frozen=True):
    """A MillstreamLoop, as the API server tells of it."""

    metadata: _Metadata
    spec: dict[str, Any] = {}
    status: Status = {}

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def file(self) -> str:
        return f"{self.name}.yaml"

    @property
    def text(self) -> str:
        """Of its loop file. JSON is YAML, and reads the same in all its versions."""
        return json.dumps({"loop": self.name} | self.spec, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What is wrong with loop files, in words for a person."""

    loops: Mapping[str, Sequence[str]]
    """By file; those without a mistake are left out."""
    project: Sequence[str] = ()
    """With the rest of the project: then nothing can be said of the loops."""


def files_of(found: Sequence[LoopResource], checked: Checked, held: Mapping[str, str]) -> dict[str, str]:
    """Name and text of the loop files that are to be. What is wrong stays as it was before, or out."""
    if checked.project:
        return dict(held)
    taken = {one.file: held.get(one.file) if one.file in checked.loops else one.text for one in found}
    return {file: text for file, text in sorted(taken.items()) if text is not None}


def status_of(one: LoopResource, checked: Checked, *, kept: bool, state: LoopState | None, at: int) -> Status:
    """`kept`: an earlier text of it is a loop file. `state` is None where this trainer does not run it. `at` is now, in
    microseconds."""
    before = {said["type"]: said for said in one.status.get("conditions", ())}

    def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
        old = before.get(kind, {})
        since = old["lastTransitionTime"] if old.get("status") == status else to_rfc3339(at)
        return {
            "type": kind,
            "status": status,
            "observedGeneration": one.metadata.generation,
            "lastTransitionTime": since,
            "reason": reason,
            "message": message[:LONGEST],
        }

    return {
        "observedGeneration": one.metadata.generation,
        **_in_short(state),
        "conditions": [
            condition("Valid", *_valid(one, checked, kept=kept)),
            condition("Champion", *_champion(state)),
            condition("Healthy", *_healthy(state)),
            condition("Decided", *_decided(state)),
        ],
    }


def _in_short(state: LoopState | None) -> Status:
    """For `kubectl get loops`."""
    if state is None:
        return {"champion": "", "trial": "", "verdict": "", "decision": ""}
    models, decided = state.models, state.last_decision
    trial = ""
    if models is not None and models.challenger is not None:
        share = f" {models.share:.0%}" if 0 < models.share < 1 else ""
        trial = f"{models.challenger.version} ({models.step.value}{share})"
    last = max(state.verdicts.values(), key=lambda verdict: verdict.at, default=None)
    return {
        "champion": "" if state.champion is None else state.champion.version,
        "trial": trial,
        "verdict": "" if last is None else f"{last.finding.value} ({last.kind.value})",
        "decision": "" if decided is None else f"{decided.decision.value} ({decided.cause.value})",
    }


def _valid(one: LoopResource, checked: Checked, *, kept: bool) -> tuple[str, str, str]:
    if checked.project:
        return "Unknown", "ProjectWrong", "the project is wrong, so no loop is changed: " + "\n".join(checked.project)
    if wrong := checked.loops.get(one.file):
        stays = "\nThe loop goes on as it was written before." if kept else ""
        return "False", "Wrong", "\n".join(wrong)[: LONGEST - len(stays)] + stays
    return "True", "Checked", "nothing wrong"


def _champion(state: LoopState | None) -> tuple[str, str, str]:
    if state is None:
        return "Unknown", "NotRun", "this trainer does not run the loop, or not yet"
    if state.champion is None:
        return "False", "NoModel", "no model answers yet: see train.first_after"
    model, run = state.champion, state.run(state.champion.run)
    learned = f"is trained on what was labelled by {_day(model.at)}"
    if run is not None and run.given is not None:
        learned = f"learned until {_day(run.given.learned_until)}"
    return "True", "Answers", f"version {model.version} of run {model.run}, which {learned}"


def _healthy(state: LoopState | None) -> tuple[str, str, str]:
    if state is None or not state.verdicts:
        return "Unknown", "NoVerdict", "drift has said nothing yet"
    latest = sorted(state.verdicts.values(), key=lambda verdict: verdict.at, reverse=True)
    ill = [verdict for verdict in latest if verdict.finding not in WELL]
    said = ill or latest[:1]
    message = "\n".join(f"{one.kind.value}, {_day(one.at)}: {one.reason}" for one in said)
    return "False" if ill else "True", _camel(said[0].finding.value), message


def _decided(state: LoopState | None) -> tuple[str, str, str]:
    decided = None if state is None else state.last_decision
    if decided is None:
        return "Unknown", "NotAsked", "nobody has asked for a model yet"
    status = "True" if decided.decision is Decision.ACCEPTED else "False"
    return status, _camel(decided.decision.value), f"{_day(decided.at)}: {decided.reason}"


def _day(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _camel(word: str) -> str:
    """A condition's reason is one word."""
    return "".join(part.capitalize() for part in word.replace("-", "_").split("_"))
