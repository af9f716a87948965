"""Online features through the Feast plug-in: definitions from the project's repo, values from Valkey, one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.contracts.topics import TILES_GROUP
from millstream.errors import BadSetup
from millstream.project import load_project
from millstream_serving.domain.columns import FeatureValues
from millstream_serving.errors import FeaturesUnavailable, ModelRefused


class FeastFeatures:
    """`ports.Features` on a FeatureReader."""

    def __init__(self, reader: Any, views: Mapping[str, str]) -> None:
        self._reader = reader
        self.views = views

    @property
    def join_keys(self) -> Sequence[str]:
        keys: tuple[str, ...] = self._reader.entity_columns
        return keys

    @property
    def names(self) -> Sequence[str]:
        names: tuple[str, ...] = self._reader.names
        return names

    @property
    def streams(self) -> Mapping[str, str]:
        streams: Mapping[str, str] = self._reader.streams
        return streams

    async def applied(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        from millstream_tiles.errors import StoreUnavailable

        try:
            fences = await self._reader.fences_async(TILES_GROUP)
        except StoreUnavailable as error:
            raise FeaturesUnavailable(str(error)) from error
        return {s: {p: (f.offset, f.stream_time) for p, f in held.items()} for s, held in fences.items()}

    async def read(self, entities: Mapping[str, Sequence[Scalar]], as_of: NDArray[np.int64]) -> FeatureValues:
        from millstream_tiles.errors import StoreUnavailable

        try:
            found = await self._reader.read_async(entities, as_of)
        except StoreUnavailable as error:
            raise FeaturesUnavailable(str(error)) from error
        return {name: _numbers(values) for name, values in found.items()}

    async def close(self) -> None:
        await self._reader.aclose()


class FeastStore:
    """`ports.FeatureStore` on the project's repo. Importing Feast takes seconds, so that happens in a thread, once."""

    def __init__(
        self,
        *,
        repo: Path,
        registry: Path,
        url: str,
        namespace: str,
        shards: int | None = None,
        project: Path | None = None,
    ) -> None:
        """`project`, when given, is held against what the repo declares; `shards` None: as the repo says."""
        self._repo = repo
        self._project = project
        self._registry = registry
        self._online: dict[str, Any] = {"url": url, "namespace": namespace}
        if shards is not None:
            self._online["shards"] = shards
        self._store: Any = None
        self._opened: dict[str, FeastFeatures] = {}
        self._opening = asyncio.Lock()

    async def prepare(self) -> None:
        """Read the repo. Raises BadSetup for one that cannot be read: the process ends, the message says why."""
        async with self._opening:
            if self._store is None:
                self._store = await asyncio.to_thread(self._open_store)

    async def check(self) -> None:
        from millstream_tiles.errors import ShardsDiffer, StoreUnavailable
        from millstream_tiles.online_store import tile_store_of

        await self.prepare()
        tiles = tile_store_of(self._store.config)
        try:
            await tiles.check()
        except ShardsDiffer as error:
            raise BadSetup(f"MILLSTREAM_SHARDS: {error}") from error
        except StoreUnavailable as error:
            raise FeaturesUnavailable(f"Valkey does not answer, check MILLSTREAM_VALKEY: {error}") from error
        finally:
            await tiles.close()

    async def open(self, service: str) -> FeastFeatures:
        await self.prepare()
        async with self._opening:
            if service not in self._opened:
                self._opened[service] = await asyncio.to_thread(self._open, service)
            return self._opened[service]

    async def close(self) -> None:
        opened, self._opened = self._opened, {}
        for features in opened.values():
            await features.close()

    def _open_store(self) -> Any:
        from millstream_tiles.errors import TilesError

        with _unchecked():
            from millstream_tiles.registry import catalogue_of, open_store

        try:
            store = open_store(self._repo, registry=self._registry, online=self._online)
            if self._project is not None:
                load_project(self._project, catalogue_of(store))
            return store
        except TilesError as error:
            raise BadSetup(str(error)) from error

    def _open(self, service: str) -> FeastFeatures:
        from millstream_tiles.digest import digest
        from millstream_tiles.errors import BadRepo

        with _unchecked():
            from millstream_tiles.feature_reader import FeatureReader

        try:
            reader = FeatureReader(self._store, service)
        except BadRepo as error:
            raise ModelRefused("features", str(error)) from error
        return FeastFeatures(reader, {name: digest(view) for name, view in reader.views.items()})


@contextmanager
def _unchecked() -> Iterator[None]:
    """While Feast is imported typeguard leaves its classes as they are. Else it parses and compiles each of them anew, to
    check the arguments of every call: three quarters of what the import takes. Whoever writes a repo has them checked by
    `millstream check`, and by features.
    """
    try:
        import typeguard
    except ImportError:  # a Feast that needs it no more
        yield
        return
    found = typeguard.typechecked

    def as_it_is(target: Any = None, **said: object) -> Any:
        return (lambda one: one) if target is None else target

    typeguard.typechecked = as_it_is
    try:
        yield
    finally:
        typeguard.typechecked = found


def _numbers(values: NDArray[Any]) -> NDArray[np.float64] | NDArray[np.int64]:
    """Windowed features come as numbers; those of ordinary Feast views may be objects, where text counts as null."""
    if values.dtype.kind in "fi":
        return values
    return np.array([float(v) if isinstance(v, (int, float)) else np.nan for v in values.tolist()], dtype=np.float64)
