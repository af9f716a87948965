"""The replicas of serving, as each last spoke: who lives, who is behind, who refuses."""

from __future__ import annotations

from millstream.contracts.events import ReplicaObeyed
from millstream.contracts.times import SECOND, from_datetime

LIVE = 90 * SECOND
"""Three times as long as replicas keep silent: one lost word does not make a replica dead."""

ACKNOWLEDGED_WITHIN = 60 * SECOND
"""From the promotion on: twice as long as a live replica keeps silent, and a package is read in seconds. By the wall's
clock, too: in a replay a minute of stream time is a millisecond, in which no replica could load a model."""


class Replicas:
    """By wall time, unlike everything else here: this is about processes. Forgets who has been silent for long, so it is
    bounded by the replicas that can start within that time."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], ReplicaObeyed] = {}

    def hear(self, event: ReplicaObeyed, now: int) -> bool:
        """Whether it is news of a live replica: an older word of the same one, and one of long ago, is not."""
        who = (event.loop, event.instance)
        before = self._last.get(who)
        if now - from_datetime(event.at) > LIVE or (before is not None and event.at < before.at):
            return False
        self._last = {who: last for who, last in self._last.items() if now - from_datetime(last.at) <= LIVE}
        self._last[who] = event
        return not event.leaving

    def live(self, loop: str, now: int) -> list[ReplicaObeyed]:
        """Those of a loop that spoke within `LIVE` and did not leave, by name."""
        heard = (last for (of, _), last in sorted(self._last.items()) if of == loop)
        return [last for last in heard if not last.leaving and now - from_datetime(last.at) <= LIVE]
