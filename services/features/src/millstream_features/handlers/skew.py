"""That tiles and lake agree is measured: some of the predictions that were served are computed again from the lake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from math import ceil, inf

import msgspec

from millstream.contracts.events import PredictionServed
from millstream.contracts.topics import SKEW
from millstream.errors import RetryLater
from millstream.runtime.delivery import Batch, Rejected
from millstream.runtime.publisher import Outgoing
from millstream_features.domain.skew import CheckedRead, SkewWindow
from millstream_features.errors import LakeBehind
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import Recompute, Speaker
from millstream_tiles.reservoir import Reservoir

log = logging.getLogger(__name__)


class _Asked(msgspec.Struct):
    """Enough of a prediction to know whether it is in the sample."""

    id: str
    loop: str
    given: bool = False
    store_away: bool = False


class CheckSkew:
    """Keeps a fair sample of what is predicted, and has its features computed again from the lake, some at a time.

    For people: nothing waits for it, and whatever goes wrong in it is logged and counted, no more. A rebalance or a crash
    loses some seconds of the sample.
    """

    def __init__(
        self,
        *,
        samples: Mapping[str, int],
        bounds: Mapping[str, float],
        every: float,
        recompute: Recompute,
        speaker: Speaker,
        metrics: FeatureMetrics,
    ) -> None:
        """`samples`: predictions a minute of each loop. `bounds`: the share of them that may differ. `every`: seconds
        between two checks."""
        self._every = every
        self._samples = {loop: Reservoir[bytes](ceil(n * every / 60)) for loop, n in samples.items()}
        self._windows = {loop: SkewWindow(loop, bounds[loop]) for loop in samples}
        self._recompute = recompute
        self._speaker = speaker
        self._metrics = metrics
        self._unsaid: list[Outgoing] = []

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        """Take a batch of `millstream-predictions` in. What cannot be read is drift's to reject, not ours as well."""
        for record in batch.records:
            if not any(n == "ce_type" and v == _SERVED for n, v in record.headers):
                continue
            try:
                asked = _decode_asked(record.value or b"")
            except (ValueError, RecursionError):
                continue
            sample = self._samples.get(asked.loop)
            # Features that came with their question are no read of ours, nor are nulls for a store that was away.
            if sample is not None and not (asked.given or asked.store_away):
                sample.offer(asked.id, record.value or b"")
        return []

    async def keep_checking(self) -> None:
        """Check what was sampled, again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.check()

    async def check(self) -> None:
        """Compute the sample of each loop again, compare, measure, and say what follows."""
        for loop, sample in self._samples.items():
            drawn = sample.drain()
            if not drawn:
                continue
            why = "failed"
            try:
                served = [msgspec.json.decode(value, type=PredictionServed) for value in drawn]
                self._note(loop, await self._recompute.check(loop, served))
                continue
            except RetryLater as error:
                why = "lake_behind" if isinstance(error, LakeBehind) else "unavailable"
                log.warning("%d predictions go unchecked: %s", len(drawn), error, extra={"loop": loop})
            except Exception as error:
                log.error("%d predictions go unchecked", len(drawn), exc_info=error, extra={"loop": loop})
            self._metrics.skew_unchecked.labels(loop, why).inc(len(drawn))
        await self._say()

    def _note(self, loop: str, reads: Sequence[CheckedRead]) -> None:
        window = self._windows[loop]
        verdict = window.add(reads)
        self._metrics.skew_checked.labels(loop).inc(len(reads))
        self._metrics.skew_differing.labels(loop).inc(sum(bool(read.differing) for read in reads))
        self._metrics.skew_share.labels(loop).set(window.share)
        for view in window.views():
            largest = inf if view.largest is None else view.largest
            self._metrics.skew_largest.labels(loop, view.view).set(largest)
        if verdict is not None:
            log.warning("skew %s: %s", verdict.finding.value, verdict.reason, extra={"loop": loop})
            self._metrics.skew_verdicts.labels(loop, verdict.finding.value).inc()
            cause = verdict.worst[0].prediction if verdict.worst else reads[-1].prediction
            out = self._speaker.outgoing(SKEW.name, verdict, id=verdict.id, key=loop, caused_by=cause)
            self._unsaid = [*self._unsaid, out][-MOST_UNSAID:]

    async def _say(self) -> None:
        if not self._unsaid:
            return
        try:
            await self._speaker.publish(self._unsaid)
        except RetryLater as error:
            log.warning("a skew verdict waits: %s", error)
        else:
            self._unsaid = []


MOST_UNSAID = 100
"""Verdicts that wait for Kafka; a loop has one when its bound is passed and one when it is kept again."""
_SERVED = PredictionServed.type_name.encode()
_decode_asked = msgspec.json.Decoder(_Asked).decode
