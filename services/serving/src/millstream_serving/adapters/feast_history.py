"""Features of the past through the Feast plug-in: the same definitions as online, values from the lake, as of each row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.errors import BadSetup
from millstream_serving.domain.columns import FeatureValues
from millstream_serving.errors import FeaturesUnavailable, ModelRefused


class PastFeatures:
    """`ports.Features` of a store's history."""

    def __init__(self, store: Any, service: str) -> None:
        """Raises BadRepo where the store has no such service."""
        from millstream_tiles.digest import digest
        from millstream_tiles.feature_reader import FeatureReader

        # It knows what the service is made of, and reads nothing online until it is asked to.
        reader = FeatureReader(store, service)
        self._store = store
        self._service = store.get_feature_service(service)
        self.join_keys: Sequence[str] = reader.entity_columns
        self.names: Sequence[str] = reader.names
        self.views: Mapping[str, str] = {name: digest(view) for name, view in reader.views.items()}
        self.streams: Mapping[str, str] = reader.streams

    async def applied(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        return {}  # the past has no position: it is all there, or not in the lake yet

    async def read(self, entities: Mapping[str, Sequence[Scalar]], as_of: NDArray[np.int64]) -> FeatureValues:
        return await asyncio.to_thread(self._read, entities, as_of)

    def _read(self, entities: Mapping[str, Sequence[Scalar]], as_of: NDArray[np.int64]) -> FeatureValues:
        from millstream_tiles.errors import TilesError
        from millstream_tiles.past_rows import past_features

        try:
            return past_features(self._store, self._service, self.names, entities, as_of)
        except TilesError as error:
            raise FeaturesUnavailable(f"features of the past cannot be computed: {error}") from error


class FeastHistory:
    """`ports.FeatureStore` on the project's repo and its lake. Importing Feast takes seconds, so that happens in a thread."""

    def __init__(self, *, repo: Path, registry: Path, lake: str) -> None:
        self._repo = repo
        self._registry = registry
        self._lake = lake
        self._store: Any = None

    async def prepare(self) -> None:
        """Read the repo. Raises BadSetup for one that cannot be read."""
        if self._store is None:
            self._store = await asyncio.to_thread(self._open)

    async def check(self) -> None:
        """The lake is looked at when it is read."""

    async def open(self, service: str) -> PastFeatures:
        from millstream_tiles.errors import BadRepo

        await self.prepare()
        try:
            return await asyncio.to_thread(PastFeatures, self._store, service)
        except BadRepo as error:
            raise ModelRefused("features", str(error)) from error

    async def close(self) -> None:
        """Nothing is held open."""

    def _open(self) -> Any:
        from millstream_tiles.errors import TilesError
        from millstream_tiles.registry import open_store

        try:
            return open_store(self._repo, registry=self._registry, offline={"lake": self._lake})
        except TilesError as error:
            raise BadSetup(str(error)) from error
