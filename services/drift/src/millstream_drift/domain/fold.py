"""The loops of one share together: records in any order in, verdicts and matured counts in stream-time order out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from millstream.contracts.events import (
    ChallengerJudged,
    LabelsMatured,
    WindowCorrected,
    WindowJudged,
    WindowKind,
    WindowSkipped,
)
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.content import ContentWindow, skipped, watched
from millstream_drift.domain.correct import correct
from millstream_drift.domain.corrections import Correction
from millstream_drift.domain.events import Heard
from millstream_drift.domain.judge import Rules, judge
from millstream_drift.domain.loop_fold import Fact, LoopFold, LoopState, Told
from millstream_drift.domain.merge import Merge, Place, further, resumed
from millstream_drift.domain.windows import Window

MOST_HELD = 20_000
"""Events held in memory before they are settled although nothing is due: a few seconds at full rate."""

NEWER = "newer windows closed before there was time for it"

BaselineOf = Callable[[str, str], Baseline]
"""(loop, version) → its baseline, which is known for every version with rows."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """Something to publish."""

    event: LabelsMatured | WindowJudged | WindowCorrected | WindowSkipped | ChallengerJudged
    cause: str
    """Event id of the last record that led to it."""
    window: Window | None = None
    """The rows behind a verdict that wants a report."""


class Fold:
    """Deterministic: the same events give the same verdicts, whatever the batches, partitions and restarts."""

    def __init__(
        self,
        rules: Mapping[str, Rules],
        loops: Mapping[str, tuple[Merge, LoopState]] | None = None,
        bounds: Mapping[Place, tuple[int, int]] | None = None,
    ) -> None:
        """`loops`: what is known of each, and up to where it was read; one that is not among them begins empty, where others
        are. `bounds`: (first offset, offset after the last) of every place that is read."""
        loops = {name: found for name, found in (loops or {}).items() if name in rules}
        self.rules = rules
        self._settled = 0
        self.merge = resumed([merge for merge, _ in loops.values()], bounds or {})
        self._ahead = {
            name: merge
            for name, (merge, _) in loops.items()
            if any(merge.next.get(place, 0) > following for place, following in self.merge.next.items())
        }
        """Loops that have had some of what will be read, and up to where: they were judged elsewhere, or saved later."""
        self.loops = {
            name: LoopFold(
                name,
                within=one.within,
                window=one.window,
                span=one.span,
                trials=one.trials,
                content=one.content.names,
                quiet=one.quiet,
                state=loops[name][1] if name in loops else None,
            )
            for name, one in rules.items()
        }

    def has_had(self, loop: str, place: Place, offset: int) -> bool:
        """Whether this loop's state has this record already, though others' has not."""
        return loop in self._ahead and offset < self._ahead[loop].next.get(place, 0)

    def merge_of(self, loop: str) -> Merge:
        """Up to where this loop's state has what was read."""
        ahead = self._ahead.get(loop)
        return self.merge if ahead is None else further(self.merge, ahead)

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
        """What follows from everything whose time is settled; nothing where that is what it was."""
        settled = self.merge.settled()
        # Two loops may ask at one time, and what the second asks be read after the first was settled: its windows close now
        # as well, and not with what comes next.
        if settled <= self._settled and not any(loop.is_behind(settled) for loop in self.loops.values()):
            return []
        self._settled = max(settled, self._settled)
        said = [
            one
            for name, loop in self.loops.items()
            for found in loop.settle(settled)
            for one in self._say(name, loop, found, baseline_of)
        ]
        return sorted(said, key=lambda one: (one.event.at, one.event.loop))

    def _say(self, name: str, loop: LoopFold, found: Told, baseline_of: BaselineOf) -> list[Said]:
        if isinstance(found, Fact):
            return [Said(event=found.event, cause=found.cause)]
        if isinstance(found, Correction):
            corrected = correct(found, baseline_of(name, found.version), self.rules[name], loop.memory)
            return [] if corrected is None else [Said(event=corrected, cause=found.last)]
        at, baseline, rules = loop.windows.closed_at(found), baseline_of(name, found.version), self.rules[name]
        verdicts = judge(found, at, baseline, rules, loop.memory)
        if not verdicts:
            return []
        if found.left:
            loop.windows.over(found)
        if found.kind is WindowKind.INPUTS:
            loop.trials.judged(found.version)
        said = [
            Said(event=verdict, cause=found.last, window=found if verdict.report is not None else None)
            for verdict in verdicts
        ]
        whole = found.kind is WindowKind.INPUTS and found.content.rows == len(found.rows) and not found.left
        if whole and watched(baseline.reference.content, rules.content):
            content = ContentWindow(found.version, found.index, at, found.start, found.end, found.last, found.content)
            said[0] = replace(said[0], event=msgspec.structs.replace(verdicts[0], content_follows=True))
            gone = loop.wait(content)
            said += [Said(event=skipped(one, name, NEWER), cause=one.cause) for one in gone]
        return said
