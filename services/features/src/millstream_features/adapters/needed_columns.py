"""Which columns of entities a question needs: Feast, where one is missing, names those of every view of the project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def needed_columns(store: Any, wanted: Any) -> list[str]:
    """Join keys, and what on-demand views take from the request, of `wanted`: a FeatureService, or "view:feature" texts."""
    every = {view.name: view for view in store.list_all_feature_views()}
    if isinstance(wanted, list):
        names = dict.fromkeys(reference.partition(":")[0].partition("@")[0] for reference in wanted)
        projections = [every[name].projection for name in names if name in every]
    else:
        projections = wanted.feature_view_projections
    return list(dict.fromkeys(_columns(projections, every)))


def _columns(projections: Iterable[Any], every: Mapping[str, Any]) -> Iterable[str]:
    from feast import OnDemandFeatureView
    from feast.feature_view import DUMMY_ENTITY_ID

    for projection in projections:
        view = every[projection.name]
        if isinstance(view, OnDemandFeatureView):
            yield from _columns(view.source_feature_view_projections.values(), every)
            for source in view.source_request_sources.values():
                yield from (field.name for field in source.schema)
        else:
            renamed = projection.join_key_map or {}
            yield from (renamed.get(key, key) for key in view.join_keys if key != DUMMY_ENTITY_ID)
