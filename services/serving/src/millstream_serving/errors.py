"""What can go wrong in serving, each error saying what happens next."""

from __future__ import annotations

from millstream.errors import MillstreamError, RetryLater


class FeaturesUnavailable(RetryLater):
    """The online store does not answer: Kafka's questions wait, HTTP's get 503."""


class FeaturesBehind(RetryLater):
    """The features have not kept up with the question, and its loop waits for them: ask again in a moment."""


class StaleFeatures(MillstreamError):
    """The features have not kept up with the question, and its loop refuses to answer then."""


class Overloaded(RetryLater):
    """As many questions as are answered soon are under way. This one was not looked at: ask again, or another replica."""


class ModelsUnknown(RetryLater):
    """`millstream-models` has not been read to its end yet, so nobody knows what to answer with."""


class ModelUnloaded(RetryLater):
    """The loop's models gave way to others, and are not back yet: ask again in a moment."""


class UnknownLoop(MillstreamError):
    """No such loop in the project."""


class NoModel(MillstreamError):
    """The loop has no champion yet: the message says what it waits for."""


class ModelFailed(MillstreamError):
    """The graph raised, or its answer is none of its task. The question goes unanswered and is recorded as such."""


class ModelAway(ModelFailed):
    """A model that runs elsewhere does not answer, or is not asked because it did not."""


class RemoteAway(RetryLater):
    """The same where it is worth waiting: Kafka's questions in the first half minute, and a model that is being loaded."""


class ModelRefused(MillstreamError):
    """This package cannot be served; the one before it stays."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        """From a closed set, for metrics: `package`, `graph`, `features`, `warm_up`, `remote`, `memory`, `unexpected`."""


class BadTable(MillstreamError):
    """A table that cannot be scored: the message says what it lacks. Nothing was written."""
