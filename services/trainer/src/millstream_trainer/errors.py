"""What can go wrong with training, and what happens next."""

from __future__ import annotations

from millstream.errors import MillstreamError


class RunFailed(MillstreamError):
    """The run made no model. TrainingFinished says `failed` with this reason; the champion goes on answering."""


class TrackingFailed(MillstreamError):
    """The run's record for people is missing or incomplete: logged and counted. The run itself goes on."""


class LoopsRefused(MillstreamError):
    """Kubernetes says no to what the loops as resources need: logged, and tried again. The loops go on as they are."""


class UnknownLoop(MillstreamError):
    """Nobody declared this loop in the project."""

    def __init__(self, loop: str, known: list[str]) -> None:
        super().__init__(f"no loop {loop[:100]!r}; the project has {', '.join(known) or 'none'}")


class UnknownVersion(MillstreamError):
    """No such version of the loop was ever on trial or answered."""


class UnknownModel(MillstreamError):
    """Nobody gave this graph."""


class UnknownRun(MillstreamError):
    """Nobody ever asked for this run."""


class NotNow(MillstreamError):
    """What is asked for is understood, and the loop's state forbids it."""
