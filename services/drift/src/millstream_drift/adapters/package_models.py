"""Model references as `millstream-models` announces them, read from their packages."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from millstream.contracts.events import ModelRef, ModelState
from millstream.contracts.package import REFERENCE_FILE, BadPackage, Reference
from millstream.contracts.times import from_datetime
from millstream.errors import RetryLater
from millstream.runtime.delivery import Record
from millstream.runtime.packages import PackageStore
from millstream_drift.domain.baseline import Baseline, UnfitReference, baseline_of

log = logging.getLogger(__name__)

VERSIONS = 64
"""References kept per loop, each about a megabyte with its sample; drift has windows for eight versions at most."""


class PackageModels:
    """The port `Models`. Feed it every record of `millstream-models`, in order."""

    def __init__(self, packages: PackageStore) -> None:
        self._packages = packages
        self._known: dict[str, dict[str, tuple[ModelRef, Baseline | None]]] = {}
        """Per loop and version; None where the package cannot be read."""
        self._newest: dict[str, int] = {}
        """Stream time of each loop's last model record."""

    async def apply(self, record: Record) -> None:
        """One record of the topic. A package folder that is away is waited for."""
        try:
            state = msgspec.json.decode(record.value or b"", type=ModelState)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("a model record that cannot be read is ignored: %s", error, extra={"offset": record.offset})
            return
        for ref in (state.previous, state.champion, state.challenger):
            while ref is not None:
                try:
                    await self.learn(state.loop, ref)
                    break
                except RetryLater as error:
                    log.warning("waiting for a package: %s", error)
                    await asyncio.sleep(1.0)
        self._newest[state.loop] = max(from_datetime(state.at), self._newest.get(state.loop, 0))

    async def learn(self, loop: str, ref: ModelRef) -> None:
        versions = self._known.setdefault(loop, {})
        if ref.version in versions:
            return
        try:
            baseline = await asyncio.to_thread(self._read, ref)
        except (BadPackage, UnfitReference) as error:
            log.error("version %s of %s cannot be judged: %s", ref.version, loop, error)
            baseline = None
        versions[ref.version] = ref, baseline
        while len(versions) > VERSIONS:
            del versions[next(iter(versions))]

    def _read(self, ref: ModelRef) -> Baseline:
        manifest = self._packages.manifest(ref)
        raw = self._packages.file(ref, manifest, REFERENCE_FILE)
        try:
            reference = msgspec.json.decode(raw, type=Reference)
        except msgspec.DecodeError as error:
            raise UnfitReference(f"{REFERENCE_FILE} cannot be read: {error}") from error
        return baseline_of(manifest, reference)

    def baseline(self, loop: str, version: str) -> Baseline | None:
        found = self._known.get(loop, {}).get(version)
        return found[1] if found is not None else None

    def is_lost(self, loop: str, version: str, asked_at: int) -> bool:
        if version in self._known.get(loop, {}):
            return self.baseline(loop, version) is None
        # The topic is compacted. A newer record than the answer, and the version is not in it: it was pushed out.
        return self._newest.get(loop, 0) > asked_at

    def ref(self, loop: str, version: str) -> ModelRef | None:
        found = self._known.get(loop, {}).get(version)
        return found[0] if found is not None else None
