"""What can go wrong in features."""

from __future__ import annotations

from millstream.errors import RetryLater


class StoreUnavailable(RetryLater):
    """The online store does not answer: the batch is tried again, nothing moves meanwhile."""


class LakeUnavailable(RetryLater):
    """The lake's storage cannot be written: rows wait in memory up to a bound, then reading stops."""


class LakeBehind(RetryLater):
    """The lake does not have yet what a question could know: its features cannot be computed again now."""
