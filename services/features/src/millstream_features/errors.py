"""What can go wrong in features."""

from __future__ import annotations

from millstream.errors import MillstreamError, RetryLater


class StoreUnavailable(RetryLater):
    """The online store does not answer: the batch is tried again, nothing moves meanwhile."""


class LakeUnavailable(RetryLater):
    """The lake's storage cannot be written: rows wait in memory up to a bound, then reading stops."""


class LakeRefuses(MillstreamError):
    """A stream's events do not fit its table: nothing was added, and a person has to change the schema. Others go on."""


class LakeBehind(RetryLater):
    """The lake does not have yet what a question could know: its features cannot be computed again now."""
