"""All loops together: records in any order in, verdicts and matured counts in stream-time order out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from millstream.contracts.events import ChallengerJudged, LabelsMatured, WindowJudged, WindowKind
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.content import ContentWindow, watched
from millstream_drift.domain.events import Heard
from millstream_drift.domain.judge import Rules, judge
from millstream_drift.domain.loop_fold import Fact, LoopFold, LoopState
from millstream_drift.domain.merge import Merge, Place
from millstream_drift.domain.windows import Window

MOST_HELD = 20_000
"""Events held in memory before they are settled although nothing is due: a few seconds at full rate."""

BaselineOf = Callable[[str, str], Baseline]
"""(loop, version) → its baseline, which is known for every version with rows."""


class FoldState(msgspec.Struct, array_like=True):
    """The whole state of drift: what is known, and up to where it was read. One is never kept without the other."""

    merge: Merge = msgspec.field(default_factory=Merge)
    loops: dict[str, LoopState] = {}


@dataclass(frozen=True, kw_only=True)
class Said:
    """Something to publish."""

    event: LabelsMatured | WindowJudged | ChallengerJudged
    cause: str
    """Event id of the last record that led to it."""
    window: Window | None = None
    """The rows behind a verdict that wants a report."""


class Fold:
    """Deterministic: the same events give the same verdicts, whatever the batches, partitions and restarts."""

    def __init__(self, rules: Mapping[str, Rules], state: FoldState | None = None) -> None:
        state = state or FoldState()
        self.rules = rules
        self.merge = state.merge
        self.loops = {
            name: LoopFold(
                name,
                within=one.within,
                window=one.window,
                span=one.span,
                trials=one.trials,
                content=one.content.names,
                state=state.loops.get(name),
            )
            for name, one in rules.items()
        }
        """Loops that left the project are forgotten, new ones begin empty."""

    def state(self) -> FoldState:
        return FoldState(self.merge, {name: loop.state() for name, loop in self.loops.items()})

    def hear(self, place: Place, following: int, events: Sequence[tuple[str, Heard]], newest: int | None) -> None:
        """Take what one partition holds below offset `following`: (loop, event) pairs; `newest` stream time among it."""
        for loop, event in events:
            self.loops[loop].hear(event)
        self.merge.read(place, following, newest)

    def is_due(self) -> bool:
        """Whether it is time to settle. A function of what was heard, so a replay settles at the same ticks each time."""
        loops = self.loops.values()
        return any(loop.is_due() for loop in loops) or sum(loop.held for loop in loops) > MOST_HELD

    def settle(self, baseline_of: BaselineOf) -> list[Said]:
        """What follows from everything whose time is settled."""
        settled = self.merge.settled()
        said = [
            one
            for name, loop in self.loops.items()
            for found in loop.settle(settled)
            for one in self._say(name, loop, found, baseline_of)
        ]
        return sorted(said, key=lambda one: (one.event.at, one.event.loop))

    def _say(self, name: str, loop: LoopFold, found: Fact | Window, baseline_of: BaselineOf) -> list[Said]:
        if isinstance(found, Fact):
            return [Said(event=found.event, cause=found.cause)]
        at, baseline = loop.windows.closed_at(found), baseline_of(name, found.version)
        whole = found.kind is WindowKind.INPUTS and found.content.rows == len(found.rows)
        if whole and watched(baseline.reference.content, self.rules[name].content):
            loop.wait(ContentWindow(found.version, found.index, at, found.start, found.end, found.last, found.content))
        return [
            Said(event=verdict, cause=found.last, window=found if verdict.report is not None else None)
            for verdict in judge(found, at, baseline, self.rules[name], loop.memory)
        ]
