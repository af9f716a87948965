"""What drift says: of windows, of labels, of two models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from millstream.contracts.event import Event


class LabelsMatured(Event, frozen=True, kw_only=True):
    """A day passed, or quiet hours ended: how many questions of a loop have their labels now. It is the trainer's clock."""

    type_name: ClassVar[str] = "millstream.labels.matured.v1"

    id: str
    loop: str
    at: datetime
    """Stream time: the boundary that was passed."""
    matured: int
    """Questions with a label known before `at`, since the stream began."""
    pending: int
    """Questions still inside `label.within`."""
    expired: int
    """Questions whose label never came in time (cancelled, diverted, lost)."""
    late: int
    """Labels that came after `label.within`."""
    orphaned: int
    """Labels without a question."""
    duplicated: int


class Finding(StrEnum):
    """What drift says about one window."""

    HEALTHY = "healthy"
    SUSPECTED = "suspected"
    DETECTED = "detected"
    BROKEN_DATA = "broken_data"
    PERFORMANCE_DROP = "performance_drop"
    CLEARED = "cleared"
    NOT_CLEARED = "not_cleared"
    """The version that was to cure an incident shows it too."""


class WindowKind(StrEnum):
    INPUTS = "inputs"
    PERFORMANCE = "performance"
    ESTIMATED = "estimated"
    """Performance before the labels are there, estimated from the answers themselves."""
    CONTENT = "content"
    """Texts and embeddings of the questions, which the model does not read."""


LEARNED: Mapping[WindowKind, str] = {WindowKind.INPUTS: "inputs", WindowKind.PERFORMANCE: "labels"}
"""What a run learns from, by the windows that judge it: retrains wait until it is whole. No model reads texts and embeddings:
a broken one holds up nothing."""


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column of a window is from the model's reference."""

    column: str
    psi: float
    """Population stability index; 0.1 is small, 0.25 large. 0 for a text or an embedding, which has `auc`."""
    missing: float
    """Share of nulls in the window."""
    reference_missing: float
    importance: float
    """Share of the model's total gain; columns count by it."""
    jensen_shannon: float = 0.0
    """Jensen-Shannon distance, 0 to 1."""
    unknown: float = 0.0
    """Share of values that training did not list; numbers: 0."""
    auc: float | None = None
    """Texts and embeddings: ROC AUC of a classifier that tells the window from training; 0.5 is that it cannot."""
    auc_low: float | None = None
    """95 % interval of it."""
    auc_high: float | None = None


class BrokenField(msgspec.Struct, frozen=True, kw_only=True):
    """A field that cannot be believed, and who sends it."""

    column: str
    """The model's column."""
    stream: str
    field: str
    """Where the column comes from: the field that the producer has to look at."""
    producer: str
    """Who sent most of the rows in question (`ce_source`); empty where nobody can say."""
    detail: str
    """What is wrong with it, with numbers."""


class SlicePerformance(msgspec.Struct, frozen=True, kw_only=True):
    """How the model did on the rows of one value of one column."""

    column: str
    value: str
    rows: int
    loss: float
    low: float
    """Confidence interval of the mean loss."""
    high: float
    reference: float | None = None
    """Loss on the holdout's rows of the same value; null where it had none."""


class WindowJudged(Event, frozen=True, kw_only=True):
    """The verdict on one window of predictions or of matured labels."""

    type_name: ClassVar[str] = "millstream.window.judged.v1"

    id: str
    loop: str
    version: str
    kind: WindowKind
    index: int
    """Windows of one version and kind are numbered from 0."""
    finding: Finding
    reason: str
    """The finding in words, with the numbers that led to it."""
    at: datetime
    """Stream time when the window closed."""
    start: datetime
    end: datetime
    rows: int
    effect: float
    """Size of the effect: importance-weighted PSI, relative loss increase over the holdout, or of texts and embeddings the
    largest lower end of an AUC's interval."""
    columns: list[ColumnDrift] = []
    metrics: dict[str, float] = {}
    report: str | None = None
    """Id of the Evidently report, served by drift at /v1/reports/{id}."""
    broken: list[BrokenField] = []
    """What `broken_data` names."""
    slices: list[SlicePerformance] = []
    about: str | None = None
    """Id of the verdict that `cleared` or `not_cleared` speaks of."""
    changed_at: datetime | None = None
    """Where the first window began that showed what is `detected`, or the `performance_drop`."""
    content_follows: bool = False
    """Inputs: the window's texts and embeddings are compared. A verdict of kind `content` and the same index comes, or a
    `WindowSkipped`."""

    @property
    def says_nothing(self) -> bool:
        """Labels: too few of its questions were asked of whole inputs, so the loss of all is told, and whatever its finding it
        neither confirms nor clears anything."""
        return self.metrics.get("whole_rows", self.rows) < self.rows

    def broken_from(self, whole: WindowJudged | None) -> datetime:
        """Of broken data: since when. `whole`: the newest window of the kind, of any version, that was judged whole before.

        The first window of a champion holds what it was asked in its canary, while windows of the champion before were whole.
        Where such a window is the longer of the two it tells nothing of the time that both hold: a break at its end is thinned
        out. Nor does one tell in which it would not show.
        """
        if whole is None or whole.at >= self.at or whole.end - whole.start > self.end - self.start:
            return self.start
        return max(self.start, whole.end) if self.shows_in(whole) else self.start

    def shows_in(self, whole: WindowJudged) -> bool:
        """Whether what is broken here would have been seen in that window: it looked at these columns, and none is broken for
        being constant, which a short window does not tell. Labels are broken where all are of one class, and a mixed window
        hides that.
        """
        seen = {one.column for one in whole.columns}
        shown = (one.column in seen and not one.detail.startswith("constant") for one in self.broken)
        return self.kind is WindowKind.INPUTS and all(shown)


class WindowSkipped(Event, frozen=True, kw_only=True):
    """Nothing is known of a window's texts and embeddings, and nothing will be: they were not compared.

    For people, and for whoever waits for the verdict. It asks for no run, confirms nothing and clears nothing.
    """

    type_name: ClassVar[str] = "millstream.window.skipped.v1"

    id: str
    loop: str
    version: str
    kind: WindowKind
    """`content`."""
    index: int
    reason: str
    at: datetime
    """Stream time when the window closed."""
    start: datetime
    end: datetime
    rows: int


class WindowCorrected(Event, frozen=True, kw_only=True):
    """Labels came after `label.within`, when their window of matured labels was judged already: what it shows with them.

    For people, and for the next window's verdict. It asks for no run: what was decided by the window stays decided.
    """

    type_name: ClassVar[str] = "millstream.window.corrected.v1"

    id: str
    loop: str
    version: str
    index: int
    """Of the window of kind `performance`."""
    corrects: str
    """Id of its verdict."""
    at: datetime
    """Stream time when it was corrected."""
    labels: int
    """Labels that came late, all together."""
    rows: int
    """With them."""
    was: Finding
    """Before these labels."""
    finding: Finding
    """As before where nothing changed, else `suspected` or `healthy`: a window by itself confirms nothing."""
    reason: str
    before: dict[str, float]
    """Mean loss, its 95 % interval, loss_increase, standard_error and the task's other numbers before these labels."""
    after: dict[str, float]
    """`auc_error`: by how much `auc` may be wrong, at most. An error of calibration is told by the verdict alone."""
    slices: list[SlicePerformance] = []
    """Those that the verdict told, with these labels."""


class TrialFinding(StrEnum):
    """What the paired comparison says of a challenger, or of a new champion on watch."""

    UNDECIDED = "undecided"
    BETTER = "better"
    WORSE = "worse"
    UNFIT = "unfit"
    """A guard broke: it fails, is slow, or answers something else altogether. No label is needed to see that."""


class TrialCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One guard or slice of a trial, with its numbers."""

    name: str
    passed: bool
    value: float
    bound: float
    detail: str


class ChallengerJudged(Event, frozen=True, kw_only=True):
    """How two models compare on the questions that both answered, as their labels mature. Nothing is decided here."""

    type_name: ClassVar[str] = "millstream.challenger.judged.v1"

    id: str
    loop: str
    version: str
    """The newer one: on trial, or on watch after its promotion."""
    against: str
    """The older one: the champion, or the one before it."""
    watch: bool
    """Whether `version` answers already for everybody and `against` is scored beside it."""
    finding: TrialFinding
    reason: str
    at: datetime
    """Stream time."""
    questions: int
    """Answered by both so far."""
    answered: int
    """Answered by `version` for real."""
    pairs: int
    """With a label: the comparison's sample."""
    difference: float
    """Mean loss of `version` minus that of `against`; below 0 it is the better one. 0 without pairs."""
    low: float
    """Confidence sequence of the mean difference: holds at every look at once."""
    high: float
    loss: float
    """Mean loss of `against` on the pairs, in which the tolerance is a share."""
    error_rate: float
    """Chance that the sequence ever leaves the truth out."""
    checks: list[TrialCheck] = []
