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
    def aggregates(self) -> Sequence[DescribedAggregate]: ...


class DescribedService(Protocol):
    """One FeatureService."""

    @property
    def features(self) -> Sequence[str]:
        """Features by their online names, `view__feature`."""
        ...

    @property
    def join_keys(self) -> Sequence[str]:
        """Everything that a question has to carry, over all views of the service."""
        ...


class FeatureCatalogue(Protocol):
    """All services and views of one Feast repo, by name."""

    @property
    def services(self) -> Mapping[str, DescribedService]: ...

    @property
    def views(self) -> Mapping[str, DescribedView]: ...
