"""What a Feast repo declares, in words that need no Feast: `millstream_tiles.registry.describe` fills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class DescribedAggregate(Protocol):
    """One windowed aggregate of a view."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> str: ...

    @property
    def column(self) -> str:
        """Field of the stream's events that is aggregated."""
        ...


class DescribedView(Protocol):
    """One StreamFeatureView."""

    @property
    def stream(self) -> str:
        """Name of the stream whose events it aggregates."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Join keys: fields of the stream's events and of whoever asks."""
        ...

    @property
    def time_field(self) -> str:
        """What the view takes for the event time; the stream says which field it is."""
        ...

    @property
    def lateness(self) -> int:
        """Microseconds after its time within which an event counts; the stream says how many."""
        ...

    @property
    def event_id(self) -> str | None:
        """What tells its events apart; None: each record counts."""
        ...

    @property
    def aggregates(self) -> Sequence[DescribedAggregate]: ...

    @property
    def where(self) -> str | None:
        """The filter of its events, an expression that compiles; None: every event counts."""
        ...


class FeatureCatalogue(Protocol):
    """What a Feast repo offers, by name."""

    @property
    def services(self) -> Mapping[str, Sequence[str]] | None:
        """Each FeatureService with the columns of its features, `view__feature`; None: something in the repo is wrong, so
        that nobody knows them yet."""
        ...

    @property
    def views(self) -> Mapping[str, DescribedView]:
        """The windowed views that can be computed; those that Feast serves by itself are not ours to judge."""
        ...

    @property
    def places(self) -> Mapping[str, tuple[str, int]]:
        """File in the repo and line of each view that was found there by its name."""
        ...


def join_keys(catalogue: FeatureCatalogue, service: str) -> list[str]:
    """What a question has to carry so that every windowed view of `service` can be looked up. Raises KeyError."""
    views = dict.fromkeys(feature.partition("__")[0] for feature in (catalogue.services or {})[service])
    keys = [key for view in views if view in catalogue.views for key in catalogue.views[view].keys]
    return list(dict.fromkeys(keys))
