"""What the trainer needs from outside, each with its duties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from millstream.contracts.events import Event, ModelRef
from millstream.contracts.package import Manifest
from millstream_trainer.domain.loop_resource import Checked, LoopResource, Status
from millstream_trainer.domain.run import Positions, RunResult, RunSpec

if TYPE_CHECKING:
    # Brings NumPy along, which only training processes need.
    from millstream_trainer.domain.dataset import Dataset
    from millstream_trainer.domain.record import Record


class Announcer(Protocol):
    """Where the trainer speaks. Called from the event loop by handlers and runs at once."""

    async def announce(self, event: Event, *, caused_by: str) -> None:
        """Put `event` on its topic and wait until it is safe there; `caused_by` is the id of what led to it.

        Safe to call twice: ids are derived, readers count an id once. Raises RetryLater (it may or may not be there), and
        ShutOut when another dispatcher has started: then this one has nothing more to say.
        """


class StreamEnds(Protocol):
    """How far the streams are."""

    async def ends(self, streams: Sequence[str]) -> Positions:
        """Last offset of every partition now, -1 where nothing was ever written. Without a partition whose records have all
        expired: nobody can wait for those. Raises RetryLater."""


class Executor(Protocol):
    """Where training runs happen. Never blocks the event loop; runs of several loops may be under way at once."""

    outlives: bool
    """Whether a run goes on when its dispatcher ends: `run` with its spec then takes it up, which is no further attempt."""

    async def prepare(self) -> None:
        """Get ready in the background, so that the first run starts warm. Optional to call."""

    async def run(self, spec: RunSpec) -> RunResult:
        """Train until the outcome is known, in a bounded time. Cancelling it ends the training, unless it `outlives` us.

        The package is saved then; writing the run down for people may go on in the background, bounded too, and fails
        without changing the outcome. The same spec gives the same model. Raises RunFailed with a reason for a person.
        """

    async def close(self) -> None:
        """End what still runs and does not outlive us, after a moment for records that are being written; no process, thread
        or connection is left behind."""


class LoopResources(Protocol):
    """Loops as resources of Kubernetes, and what becomes of them. Called by one task, one call at a time; never blocks the
    event loop. Every call is twice safe, and raises RetryLater where Kubernetes is away and LoopsRefused where it says no."""

    async def loops(self) -> list[LoopResource]:
        """All there are."""

    async def held(self) -> dict[str, str]:
        """Name and text of the loop files as they are kept now."""

    async def keep(self, files: Mapping[str, str]) -> None:
        """These files and no others."""

    async def restart(self, mark: str) -> None:
        """Have the services start again, one pod after the other, unless they started with this mark already."""

    async def say(self, loop: str, status: Status) -> None:
        """The loop's status."""

    async def wait(self, seconds: int) -> None:
        """Until a loop changes, for `seconds` at most."""

    async def close(self) -> None:
        """End a wait that is under way, and leave no thread or connection behind."""


class LoopCheck(Protocol):
    """Whether the services would take loop files, beside the streams and features that are there."""

    async def check(self, files: Mapping[str, str]) -> Checked:
        """What is wrong with each. Takes seconds. Raises RetryLater."""


class Packages(Protocol):
    """Where finished models are (`millstream.runtime.packages.PackageStore`). May block for a small file."""

    def manifest(self, ref: ModelRef) -> Manifest:
        """The manifest that `ref` names. Raises BadPackage, RetryLater."""

    def sweep(self, older_than: float, unclaimed: Callable[[str, str], bool]) -> int:
        """Remove drafts, and the packages that are `unclaimed` (of a loop, by name), which nobody has touched for `older_than`
        seconds; how many. Raises OSError."""


class GivenModels(Protocol):
    """Graphs that were made elsewhere (`millstream.runtime.packages.PackageStore`). Block: call them in a thread."""

    def give(self, raw: bytes) -> str:
        """Keep one; its sha256. Safe to call twice. Raises OSError."""

    def is_given(self, sha256: str) -> bool:
        """Whether it is here."""


class History(Protocol):
    """What a training process learns from. Blocks; called once per run."""

    def read(self, spec: RunSpec) -> Dataset:
        """Every question that has its label by `spec.at`, with its inputs and features as they were known when it was asked.

        Sorted, each question once; the same spec gives the same rows. Raises RunFailed.
        """


class Tracker(Protocol):
    """Where runs are written down for people. Called by one thread beside the run, which never waits for it.

    Blocks; retries within its own bound, then raises TrackingFailed.
    """

    def begin(self, spec: RunSpec, params: Mapping[str, str]) -> str | None:
        """Open a run; its id, or None when nothing is tracked. Called again when it raised; opens one run at most."""

    def finish(self, record: Record) -> None:
        """Log the outcome, the package and the charts, register the model, and move an alias to it when it passed: `champion`
        where it answers at once, else `challenger`.

        An alias never goes back: records of two runs may be written at once, and the older one may end last. Of several
        attempts at one run the newest is registered; an older one, given up meanwhile, is only written down.
        """

    def fail(self, reason: str) -> None:
        """Close the run as failed."""
