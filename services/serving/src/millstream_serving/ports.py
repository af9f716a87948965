"""What serving needs from outside, and the duties of whoever provides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import ModelRef, Scalar
from millstream.contracts.package import InputColumn, Manifest
from millstream.runtime.publisher import Outgoing
from millstream_serving.domain.columns import Columns, FeatureValues


class Model(Protocol):
    """A loaded graph. Called from the event loop and from threads, several at once."""

    @property
    def size(self) -> int:
        """Bytes of memory that it took as it was loaded."""

    def run(self, columns: Columns) -> NDArray[np.float32]:
        """One number a row, shape (n,), or one a class, shape (n, classes), whatever they are. Blocks for about 20 µs a row,
        never on I/O.

        A row's answer depends on that row alone, not on its neighbours. Raises ModelFailed.
        """


@runtime_checkable
class RemoteModel(Protocol):
    """A model that runs elsewhere. It is asked from the event loop, by many at once; each question has an end of its own."""

    def run(self, columns: Columns) -> NDArray[np.float32]:
        """As `Model.run`, for threads other than the event loop's. Blocks on I/O. Raises ModelFailed."""

    async def ask(self, columns: Columns) -> NDArray[np.float32]:
        """The same. Raises ModelAway where it does not answer, at once while it is known not to, else ModelFailed."""


class RemoteRuntime(Protocol):
    """Turns what a package says of a remote model into one that can be asked."""

    async def open(self, raw: bytes, manifest: Manifest) -> RemoteModel:
        """Asks nothing yet. Raises ModelRefused("remote") for a host that may not be asked."""

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class ModelRuntime(Protocol):
    """Turns the bytes of a package into a model. Called by one loader at a time, in a thread."""

    def load(self, raw: bytes, inputs: Sequence[InputColumn], output: str) -> Model:
        """The model, its graph's inputs and output being those named. Raises ModelRefused("graph")."""


class Features(Protocol):
    """Online features of one Feast service. Called by many requests at once; never blocks the loop."""

    @property
    def join_keys(self) -> Sequence[str]:
        """Fields of the asking event that name its entities."""

    @property
    def names(self) -> Sequence[str]:
        """What `read` answers: `view__feature`."""

    @property
    def views(self) -> Mapping[str, str]:
        """View → hash of its definition here and now."""

    @property
    def streams(self) -> Mapping[str, str]:
        """View → the stream whose events it aggregates. Ordinary Feast views have none and are in no stream's time."""

    async def applied(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """Stream → partition → last offset and newest known-at (microseconds) that the online store has applied.

        A partition of which nothing was applied is missing. One round trip. Raises FeaturesUnavailable.
        """

    async def read(self, entities: Mapping[str, Sequence[Scalar]], as_of: NDArray[np.int64]) -> FeatureValues:
        """For each name one value a row, as known at `as_of[row]` (microseconds): int64, or float64 with NaN for null.

        A null entity has empty windows. Reads only. Raises FeaturesUnavailable.
        """


class Freshness(Protocol):
    """Whether features have kept up with the questions. Called by many requests at once; never blocks the loop."""

    async def stale(self, features: Features, asked_at: Sequence[int], bound: int) -> list[dict[str, float]]:
        """For each question the views that miss events known more than `bound` (microseconds) before it, and by how many
        seconds they lag. Empty where there are none, which is nearly always: that costs no round trip.

        A stream in which nothing happens is never stale. Raises FeaturesUnavailable, RetryLater.
        """

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class AnswerLog(Protocol):
    """Where answers go on record. Called from the event loop, in the way of each answer: never blocks."""

    def put(self, loop: str, records: Sequence[Outgoing]) -> None:
        """Take all records of one run of `loop`, or none; each fits Kafka. They are in Kafka milliseconds later.

        Raises NotSent where they cannot go on record and the loop refuses to answer then.
        """


class FeatureStore(Protocol):
    """The project's Feast repo on the online store."""

    async def prepare(self) -> None:
        """Read the definitions; called once before the first question. May take seconds, off the loop.

        Raises MillstreamError for a repo that cannot be read: the process ends.
        """

    async def check(self) -> None:
        """Whether the online store is there; called before the first question. Raises FeaturesUnavailable."""

    async def open(self, service: str) -> Features:
        """The features of one service; the same object on a repeat. May take seconds the first time, off the loop.

        Raises ModelRefused("features") where there is no such service.
        """

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class Packages(Protocol):
    """Where model packages are (`millstream.runtime.packages.PackageStore`). Blocks: call it in a thread."""

    def manifest(self, ref: ModelRef) -> Manifest:
        """Hash checked. Raises BadPackage, RetryLater."""

    def file(self, ref: ModelRef, manifest: Manifest, name: str) -> bytes:
        """One file of it, hash checked. Raises BadPackage, RetryLater."""


class Piece(Protocol):
    """Some rows of a table that is scored, next to each other. Its columns were checked (`domain.batch.check`)."""

    @property
    def rows(self) -> int:
        """How many."""

    def numbers(self, name: str) -> NDArray[Any]:
        """A column as numbers of any width, null as NaN."""

    def texts(self, name: str) -> NDArray[np.object_]:
        """A column as categories (`domain.columns.category_text`), null as ""."""

    def scalars(self, name: str) -> Sequence[Scalar]:
        """A column as keys."""

    def times(self, name: str) -> NDArray[np.int64]:
        """A column as microseconds. Raises BadTable for a null."""


class AnswerTable(Protocol):
    """Where the answers to a table go. Called by one writer, who may wait."""

    def write(self, piece: Piece, values: NDArray[np.float64], nulls: NDArray[np.int32]) -> None:
        """The answers to the rows of `piece`, behind those before: `values` (n, answers), NaN for none; `nulls`: how many
        features of each row were null. Raises OSError."""
