"""What a loop said during a backtest, in the order of its saying; and the two ports of the trainer that need no server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from millstream.contracts.events import (
    ChallengerJudged,
    Event,
    LabelsMatured,
    ModelState,
    RetrainDecided,
    RolloutMoved,
    WindowCorrected,
)
from millstream_trainer.domain.run import Positions


class Journal:
    """`ports.Announcer` of the trainer; drift's verdicts are written beside."""

    def __init__(self) -> None:
        self.told: list[tuple[Event, str]] = []
        """(event, id of what led to it)"""
        self.state: ModelState | None = None

    async def announce(self, event: Event, *, caused_by: str) -> None:
        self.write(event, caused_by)
        if isinstance(event, ModelState):
            self.state = event

    def write(self, event: Event, caused_by: str) -> None:
        self.told.append((event, caused_by))

    def timeline(self) -> list[dict[str, Any]]:
        """Every window's verdict, healthy ones too, the comparisons that moved something, decisions, runs, steps and models; in
        stream time. Rows as in the `journal.jsonl` of a demo."""
        causes = {event.request for event, _ in self.told if isinstance(event, RetrainDecided)}
        causes |= {caused_by for event, caused_by in self.told if isinstance(event, RolloutMoved)}
        rows = [
            {"caused_by": caused_by, "type": event.type_name} | msgspec.to_builtins(event)
            for event, caused_by in self.told
            if not isinstance(event, WindowCorrected | LabelsMatured | ChallengerJudged) or event.id in causes
        ]
        return sorted(rows, key=lambda row: str(row["at"]))


class NoStreams:
    """`ports.StreamEnds` where the past is all there is."""

    async def ends(self, streams: Sequence[str]) -> Positions:
        return {}
