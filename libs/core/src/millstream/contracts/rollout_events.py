"""Which model answers, and how it came to that."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from millstream.contracts.event import Event


class Step(StrEnum):
    """Steps of a rollout; `millstream_trainer.domain.rollout` holds the allowed moves."""

    REGISTERED = "registered"
    SHADOW = "shadow"
    CANARY = "canary"
    CHAMPION = "champion"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model package is and how to know that it is the right one."""

    version: str
    run: str
    uri: str
    """Folder of the package: model.onnx, manifest.json, reference.json."""
    sha256: str
    """Of manifest.json, which in turn names the hashes of the other files."""
    at: datetime
    """Stream time up to which the model has seen data."""


class ModelState(Event, frozen=True, kw_only=True):
    """The whole rollout state of one loop; the last record of the compacted topic holds."""

    type_name: ClassVar[str] = "millstream.model.state.v1"

    id: str
    loop: str
    revision: int
    """Grows by one with each record; a replica ignores what is older than it has."""
    step: Step
    champion: ModelRef | None
    challenger: ModelRef | None
    previous: ModelRef | None
    """The champion before this one: what a rollback goes back to."""
    reason: str
    at: datetime
    share: float = 0.0
    """Share of entities that the challenger answers; above 0 in the canary."""
    since: datetime | None = None
    """Stream time at which the step began."""
    pairs: int = 0
    """Pairs of the comparison when the step began."""
    watch_until: datetime | None = None
    """Until then `previous` is scored beside the champion and comes back when the champion disappoints."""
    frozen: str = ""
    """Why a person stopped all moves but a rollback; empty: nobody did."""
    pinned: str = ""
    """The version that a person wants to answer whatever comes; empty: none."""
    promoting: int = 0
    """Revision of the promotion that not every live replica has said it obeys; 0: all do, or nobody waits for them any more.
    The rollout takes no further step meanwhile."""


class RolloutMoved(Event, frozen=True, kw_only=True):
    """One step of a rollout, for the journal: the model states themselves are compacted away."""

    type_name: ClassVar[str] = "millstream.rollout.moved.v1"

    id: str
    loop: str
    revision: int
    """Of the model state that it led to."""
    run: str
    version: str
    step: Step
    """Where `version` stands now."""
    before: Step
    share: float
    reason: str
    at: datetime
    model: ModelRef | None = None
    """The package of `version`: what a later rollback finds it by."""
    by: str = ""
    """Who asked for it; empty: the rollout itself."""
    numbers: dict[str, float] = {}
    """What the comparison had said: pairs, difference, low, high, loss."""
    led_to: ModelState | None = None
    """The model state as it is after this step. It is published next, and finished from here where trainer died in between."""


class RolloutAction(StrEnum):
    ROLLBACK = "rollback"
    PIN = "pin"
    UNPIN = "unpin"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"


class RolloutRequested(Event, frozen=True, kw_only=True):
    """A person's word on which model answers."""

    type_name: ClassVar[str] = "millstream.rollout.requested.v1"

    id: str
    loop: str
    action: RolloutAction
    by: str
    reason: str
    to: str | None = None
    """Version to go back to or to pin; None: the one before."""


class ReplicaObeyed(Event, frozen=True, kw_only=True):
    """A replica of serving says which model state it obeys, at each change and now and then."""

    type_name: ClassVar[str] = "millstream.replica.obeyed.v1"

    id: str
    loop: str
    instance: str
    revision: int
    """The newest that it obeys."""
    version: str | None
    """Who answers there."""
    refused: int = 0
    """A newer revision that it could not obey; 0: none."""
    refused_version: str = ""
    """The version of it that could not be loaded: the champion or the challenger. Empty: none, or the replica does not say."""
    reason: str = ""
    """Why it could not."""
    at: datetime
    """By the replica's clock: this is about processes, not about the stream."""
    leaving: bool = False
    """It stops now, on purpose."""
