"""What goes wrong in drift alone: a window without a comparison, and the reasons on its dead letters, a closed set."""

from __future__ import annotations


class NotCompared(Exception):
    """The content of a window could not be compared: it has no verdict, the next window may."""


NOT_OURS = "not_our_event"
"""No `ce_type` on a record of our own topic."""
BAD_JSON = "bad_json"
BAD_EVENT = "bad_event"
"""JSON, but not what the type says."""
NO_ANSWER = "no_answer"
"""The output is no answer of the loop's task: not finite, or no probability."""
INVALID_LABEL = "invalid_label"
"""The label is no number, and the loop's task needs one."""
KNOWN_IN_FUTURE = "known_in_future"
"""Known later than Kafka got it: one such event would expire everything that waits."""
