"""What was said of a loop lately, for whoever asks: its last verdicts, and what late labels made of them."""

from __future__ import annotations

import msgspec

from millstream.contracts.events import WindowCorrected, WindowJudged

KEPT = 20
"""Verdicts of each kind: those on labels are rare, and corrected two windows later."""


class Lately(msgspec.Struct, kw_only=True):
    """The last verdicts of one loop."""

    verdicts: list[WindowJudged] = msgspec.field(default_factory=list)
    """Oldest first."""
    corrected: dict[str, WindowCorrected] = msgspec.field(default_factory=dict)
    """The newest correction of each that was corrected, by the verdict's id."""

    def said(self, event: WindowJudged | WindowCorrected) -> None:
        """Keep it. A correction of a verdict that is kept no more says nothing to whoever sees the others."""
        if isinstance(event, WindowCorrected):
            self.corrected[event.corrects] = event
        else:
            alike = [one for one in self.verdicts if one.kind is event.kind]
            oldest = alike[0] if len(alike) == KEPT else None
            self.verdicts = [one for one in self.verdicts if one is not oldest] + [event]
        kept = {one.id for one in self.verdicts}
        self.corrected = {id: one for id, one in self.corrected.items() if id in kept}
