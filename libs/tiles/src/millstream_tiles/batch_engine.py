"""`feast materialize` beside windowed views: it fills the ordinary ones and passes over those that need none."""

from __future__ import annotations

import logging
from typing import Any

from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry

from millstream_tiles.feast_views import is_windowed

log = logging.getLogger(__name__)


class MillstreamComputeEngineConfig(LocalComputeEngineConfig):  # type: ignore[misc]
    """`batch_engine:` in feature_store.yaml."""

    type: str = "millstream_tiles.batch_engine.MillstreamComputeEngine"


class MillstreamComputeEngine(LocalComputeEngine):  # type: ignore[misc]
    """Feast's local engine, which refuses a view with time windows and with it the whole run."""

    def __init__(self, **settings: Any) -> None:
        settings.pop("type", None)
        super().__init__(**settings)

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        if not is_windowed(view):
            return super()._materialize_one(registry, task, **kwargs)
        # A warning, for Feast's command shows nothing below.
        log.warning(
            "%s: nothing to materialize, its windows are kept up to date from the stream; to fill them anew: rebuild",
            view.name,
        )
        return LocalMaterializationJob(job_id=view.name, status=MaterializationJobStatus.SUCCEEDED)
