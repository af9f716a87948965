"""Texts and embeddings that no model reads: a sample of each window, and the verdict once a classifier has looked at it.

A classifier is asked to tell the window's rows from the training's; its ROC AUC on rows that it did not learn from is the
effect (domain classifier: Rabanser, Günnemann, Lipton, Failing Loudly, NeurIPS 2019, section 3; Evidently's text drift is
one). 0.5 is that it cannot, so what it sees is a change of some size and not only a significant one. Learning takes a
second: it is done beside the fold, and the verdict comes some seconds after those of the same window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from millstream.contracts.content import EMBEDDING, SAMPLE, rank
from millstream.contracts.envelope import derived_id
from millstream.contracts.events import BrokenField, ColumnDrift, Finding, WindowJudged, WindowKind, WindowSkipped
from millstream.contracts.package import ContentReference
from millstream.contracts.times import to_datetime, to_rfc3339
from millstream_drift.domain.events import Contents
from millstream_drift.domain.hysteresis import Hysteresis
from millstream_drift.domain.triage import BROKEN_SHARE, in_words

FEWEST = 100
"""Rows of either side that are compared: below it the interval of an AUC is wider than 0.1."""
CHANCE = 0.5


class Sample(msgspec.Struct, array_like=True):
    """Rows of a window that a question's content is looked at of: those of the lowest rank, so neither the batching nor the
    order of questions decides which."""

    rows: int = 0
    there: dict[str, int] = {}
    """Rows that have the field."""
    kept: list[tuple[int, Contents]] = []

    def add(self, id: str, contents: Contents) -> None:
        self.rows += 1
        if not contents:
            return
        for name in contents:
            self.there[name] = self.there.get(name, 0) + 1
        self.kept.append((rank(id), contents))
        if len(self.kept) >= 2 * SAMPLE:
            self.kept = self.drawn()

    def drawn(self) -> list[tuple[int, Contents]]:
        return sorted(self.kept, key=lambda one: one[0])[:SAMPLE]

    def column(self, name: str) -> list[bytes]:
        return [contents[name] for _, contents in self.drawn() if name in contents]


class ContentWindow(msgspec.Struct, array_like=True):
    """A closed window whose content waits to be compared."""

    version: str
    index: int
    at: int
    start: int
    end: int
    """Stream times (microseconds)."""
    cause: str
    """Id of its last event."""
    sample: Sample


@dataclass(frozen=True, kw_only=True)
class Side:
    """One field to compare: as many texts, or vectors of one width, of either side."""

    name: str
    type: str
    window: Sequence[bytes]
    reference: Sequence[bytes]


@dataclass(frozen=True, kw_only=True)
class ContentShift:
    """What the classifier says of one field."""

    name: str
    auc: float
    low: float
    high: float
    """95 % interval."""
    detail: str = ""
    """What it is that differs, where that can be said in words."""


@dataclass(frozen=True, kw_only=True)
class ContentRules:
    """What the loop's file says about texts and embeddings."""

    loop: str
    asked: str
    """Stream whose events ask."""
    names: tuple[str, ...]
    auc: float
    agree: int
    windows: int


def watched(references: Sequence[ContentReference], rules: ContentRules) -> list[ContentReference]:
    """Fields that the loop watches and the version was trained among: an older package knows none."""
    return [one for one in references if one.name in rules.names]


def sides(sample: Sample, references: Sequence[ContentReference]) -> list[Side]:
    """What is to be compared: fields with enough rows on both sides."""
    found = []
    for one in references:
        known = _known(one)
        cells = _fitting(sample.column(one.name), one)
        if min(len(cells), len(known)) >= FEWEST:
            found.append(Side(name=one.name, type=one.type, window=cells, reference=known))
    return found


def judge_content(
    window: ContentWindow,
    shifts: Sequence[ContentShift],
    references: Sequence[ContentReference],
    rules: ContentRules,
    memory: Hysteresis,
) -> WindowJudged:
    """The verdict on a window's content; `memory` moves on by one."""
    id = derived_id(rules.loop, window.version, WindowKind.CONTENT, str(window.index), to_rfc3339(window.start))
    by_name = {one.name: one for one in shifts}
    broken = [found for one in references if (found := _broken(one, window.sample, rules))]
    effect = max((one.low for one in shifts), default=0.0)
    weighed = None
    if broken:
        finding, reason = Finding.BROKEN_DATA, in_words(broken)
        memory.doubt(window.version)
    elif not shifts:
        finding, reason = Finding.HEALTHY, f"fewer than {FEWEST} texts or embeddings are too few to judge"
    else:
        over = effect >= rules.auc
        weighed = memory.weigh(window.version, id, over, rules.agree, rules.windows, start=window.start)
        finding = weighed.finding
        agreed = f" in {weighed.agreeing} of {weighed.of} windows" if over else ""
        reason = f"told from training by {_in_words(shifts)}: {'≥' if over else '<'} {rules.auc}{agreed}"
    since = 0 if weighed is None else weighed.since
    return WindowJudged(
        id=id,
        loop=rules.loop,
        version=window.version,
        kind=WindowKind.CONTENT,
        index=window.index,
        finding=finding,
        reason=reason,
        at=to_datetime(window.at),
        start=to_datetime(window.start),
        end=to_datetime(window.end),
        rows=window.sample.rows,
        effect=effect,
        columns=[_column(one, window.sample, by_name.get(one.name)) for one in references],
        broken=broken,
        about=None if weighed is None else weighed.about,
        changed_at=to_datetime(since) if since else None,
    )


def skipped(window: ContentWindow, loop: str, reason: str) -> WindowSkipped:
    """What is said of a window that is not compared, so that nobody takes silence for health, or waits for ever."""
    return WindowSkipped(
        id=derived_id(loop, window.version, "skipped", WindowKind.CONTENT, str(window.index), to_rfc3339(window.start)),
        loop=loop,
        version=window.version,
        kind=WindowKind.CONTENT,
        index=window.index,
        reason=f"texts and embeddings are not compared: {reason}",
        at=to_datetime(window.at),
        start=to_datetime(window.start),
        end=to_datetime(window.end),
        rows=window.sample.rows,
    )


def _known(one: ContentReference) -> Sequence[bytes]:
    return one.vectors if one.type == EMBEDDING else [text.encode("utf-8", "replace") for text in one.texts]


def _width(cells: Sequence[bytes]) -> int:
    """Bytes that most vectors have; 0 where there are none."""
    return Counter(map(len, cells)).most_common(1)[0][0] if cells else 0


def _fitting(cells: Sequence[bytes], one: ContentReference) -> Sequence[bytes]:
    """Of an embedding, vectors as wide as training's."""
    width = _width(one.vectors)
    return cells if one.type != EMBEDDING else [cell for cell in cells if len(cell) == width]


def _missing(one: ContentReference, sample: Sample) -> float:
    return 1 - sample.there.get(one.name, 0) / sample.rows


def _broken(one: ContentReference, sample: Sample, rules: ContentRules) -> BrokenField | None:
    """A field that is gone, or vectors of another width: a producer's embedding model was changed."""
    cells, missing, detail = sample.column(one.name), _missing(one, sample), ""
    if missing - one.missing >= BROKEN_SHARE:
        detail = f"{missing:.0%} missing, {one.missing:.0%} in training"
    elif cells and len(_fitting(cells, one)) <= (1 - BROKEN_SHARE) * len(cells):
        detail = f"vectors of {_width(cells) // 4} numbers, {_width(one.vectors) // 4} in training"
    if not detail:
        return None
    return BrokenField(column=one.name, stream=rules.asked, field=one.name, producer="", detail=detail)


def _in_words(shifts: Sequence[ContentShift]) -> str:
    ranked = sorted(shifts, key=lambda one: (-one.low, one.name))
    return "; ".join(
        f"{one.name}, AUC {one.auc:.2f} ({one.low:.2f} to {one.high:.2f}){', ' * bool(one.detail)}{one.detail}"
        for one in ranked
    )


def _column(one: ContentReference, sample: Sample, shift: ContentShift | None) -> ColumnDrift:
    return ColumnDrift(
        column=one.name,
        psi=0.0,
        missing=_missing(one, sample),
        reference_missing=one.missing,
        importance=0.0,
        auc=None if shift is None else shift.auc,
        auc_low=None if shift is None else shift.low,
        auc_high=None if shift is None else shift.high,
    )
