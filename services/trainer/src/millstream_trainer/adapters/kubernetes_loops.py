"""MillstreamLoops of one namespace, the ConfigMaps that they become, and the Deployments that start again with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from millstream.errors import BadSetup
from millstream.project.resource import PLURAL
from millstream_trainer.adapters.kubernetes_api import KubernetesApi, Missing
from millstream_trainer.domain.loop_resource import LoopResource, Status
from millstream_trainer.errors import LoopsRefused, RunFailed

T = TypeVar("T")

ANNOTATION = "millstream/loops"
"""Of pods: which loops they started with."""


class _Versioned(msgspec.Struct, frozen=True):
    resourceVersion: str = ""


class _Loops(msgspec.Struct, frozen=True):
    metadata: _Versioned = _Versioned()
    items: list[LoopResource] = []


class _ConfigMap(msgspec.Struct, frozen=True):
    data: dict[str, str] | None = None


class LoopsApi(KubernetesApi):
    """The calls, of one namespace. They block."""

    def loops(self) -> tuple[list[LoopResource], str]:
        """Oldest name first, and the version of what was seen. Raises Missing where there is no such kind."""
        found = msgspec.json.decode(self._ask("list", PLURAL), type=_Loops)
        return sorted(found.items, key=lambda one: one.name), found.metadata.resourceVersion

    def data(self, name: str) -> dict[str, str]:
        return msgspec.json.decode(self._ask("get", "configmaps", name), type=_ConfigMap).data or {}

    def merge(self, resource: str, name: str, change: Mapping[str, Any]) -> None:
        self._ask("patch", resource, name, body=change)

    def wait_for_loops(self, since: str, seconds: int) -> None:
        self._watch(PLURAL, since, seconds)


class KubernetesLoops:
    """See `ports.LoopResources`."""

    def __init__(self, configs: Sequence[tuple[str, str]], restarts: Sequence[str], kubeconfig: Path | None) -> None:
        """`configs`: namespace and name of the ConfigMaps; the loops are in the namespace of the first. Raises BadSetup."""
        self._configs = [(LoopsApi(namespace, kubeconfig), name) for namespace, name in configs]
        self._restarts = tuple(restarts)
        self._seen = ""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="loops")

    @classmethod
    def of(cls, configs: str, restarts: str, kubeconfig: Path | None) -> KubernetesLoops:
        """As the settings have them. Raises BadSetup."""
        named = [one.strip().split("/") for one in configs.split(",")]
        if not all(len(parts) == 2 and all(parts) for parts in named):
            raise BadSetup(f"MILLSTREAM_LOOP_CONFIGS is {configs!r}: write ConfigMaps as mill/mill-loops")
        pairs = [(namespace, name) for namespace, name in named]
        return cls(pairs, [one.strip() for one in restarts.split(",") if one.strip()], kubeconfig)

    @property
    def _api(self) -> LoopsApi:
        return self._configs[0][0]

    async def loops(self) -> list[LoopResource]:
        def listed() -> list[LoopResource]:
            found, self._seen = self._api.loops()
            return found

        missing = (
            "this cluster knows no MillstreamLoop; kubectl apply --server-side -f deploy/crds/millstreamloops.yaml"
        )
        return await self._call(listed, missing)

    async def held(self) -> dict[str, str]:
        api, name = self._configs[0]
        return await self._call(lambda: api.data(name), self._no_config(api, name))

    async def keep(self, files: Mapping[str, str]) -> None:
        for api, name in self._configs:

            def put(api: LoopsApi = api, name: str = name) -> None:
                gone = api.data(name).keys() - files.keys()
                api.merge("configmaps", name, {"data": {**files, **dict.fromkeys(gone)}})

            await self._call(put, self._no_config(api, name))

    async def restart(self, mark: str) -> None:
        change = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: mark}}}}}
        for name in self._restarts:
            missing = f"there is no Deployment {name} in {self._api.namespace}; loops.restart of the chart names it"
            await self._call(lambda name=name: self._api.merge("deployments", name, change), missing)  # type: ignore[misc]

    async def say(self, loop: str, status: Status) -> None:
        # One that is gone meanwhile needs no status.
        await self._call(lambda: self._api.merge(PLURAL, f"{loop}/status", {"status": status}), "")

    async def wait(self, seconds: int) -> None:
        await self._call(lambda: self._api.wait_for_loops(self._seen, seconds), "")

    async def close(self) -> None:
        for api, _ in self._configs:
            api.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for api, _ in self._configs:
            api.disconnect()

    def _no_config(self, api: LoopsApi, name: str) -> str:
        return f"there is no ConfigMap {name} in {api.namespace}; the chart makes it where loops.enabled is true"

    async def _call(self, work: Callable[[], T], missing: str) -> T:
        """`missing`: what it means that the object is not there; empty: nothing."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RunFailed as error:
            raise LoopsRefused(str(error)) from error
        except Missing as error:
            raise LoopsRefused(missing or "it is gone") from error
