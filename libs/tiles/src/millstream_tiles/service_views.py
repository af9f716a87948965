"""Which windowed views stand behind the features of a prediction, by the names that a log knows them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feast import FeatureStore

from millstream_tiles.definition import Aggregate, View
from millstream_tiles.feast_views import is_windowed, views_of


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What a log holds under one name."""

    aggregate: Aggregate
    place: int
    """Of `last_k`: which of its values, from 1 (the latest); 0: the value itself."""


@dataclass(frozen=True, kw_only=True)
class ServiceView:
    """A windowed view as a FeatureService has it."""

    view: View
    prefix: str
    """What its features begin with in a log: the view's name, or the alias that the service gives it."""
    keys: Mapping[str, str]
    """Join key of the view -> column of the entities."""

    @property
    def features(self) -> dict[str, Logs]:
        """Name in a log ("prefix__feature") -> what stands there, for all of the view's features."""
        return {
            f"{self.prefix}__{column}": Logs(aggregate=a, place=place if a.k else 0)
            for a in self.view.aggregates
            for place, column in enumerate(a.columns, 1)
        }


def service_views(store: FeatureStore, service: str) -> list[ServiceView]:
    """The windowed views of `service`, then every other one under its own name: an older model may have read those.

    Raises Feast's FeatureServiceNotFoundException.
    """
    views = views_of(store)
    every = {v.name: v for v in store.list_all_feature_views()}
    found: dict[str, ServiceView] = {}
    for projection in store.get_feature_service(service).feature_view_projections:
        if is_windowed(every[projection.name]):
            view, renamed = views[projection.name], projection.join_key_map or {}
            prefix = projection.name_to_use()
            keys = {k: renamed.get(k, k) for k in view.keys}
            found[prefix] = ServiceView(view=view, prefix=prefix, keys=keys)
    for name, view in views.items():
        found.setdefault(name, ServiceView(view=view, prefix=name, keys={k: k for k in view.keys}))
    return list(found.values())
