"""Every knob of serving, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from millstream.runtime.crew import CrewSettings
from millstream.runtime.schema_registry import RegistrySettings


class RemoteSettings(BaseSettings):
    """How models that run elsewhere are asked."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_", frozen=True, extra="ignore")

    model_hosts: str = ""
    """Hosts whose models may be asked, with a port or for all ports: `triton.models.svc:8000,10.0.0.5`. Empty: none, since a
    package would else decide whom this process talks to."""
    remote_timeout: Annotated[float, Field(gt=0, le=30)] = 2.0
    """Seconds for one answer of a remote model, waiting for its turn included: as the online store has, so that both fit into
    `request_timeout`."""
    remote_connect: Annotated[float, Field(gt=0, le=30)] = 0.5
    """Seconds of it to connect: a host in the same cluster answers in a millisecond, one that is gone never."""
    remote_at_once: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests under way to one remote model. Callers of one moment share a request, so few are needed; the rest wait."""
    remote_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failures in a row after which a remote model is not asked for a while: one or two are a restart behind its balancer."""
    remote_rest: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Seconds of that while; then one question looks whether it is back."""


class Settings(CrewSettings, RegistrySettings, RemoteSettings):
    valkey: str = "redis://127.0.0.1:6379/0"
    """Online store that features writes: Redis 7 or newer, or Valkey; a cluster as redis+cluster://host:6379,host:6379."""
    shards: Annotated[int, Field(ge=1, le=256)] | None = None
    """Parts of the online store, as features has them. None: as feature_store.yaml says, else 1 on one server and 12 on a
    cluster."""
    namespace: str = "millstream"
    """Prefix of every key in it, so that several projects can share a server."""
    packages: str = "packages"
    """Folder of the model packages. Only what lies under it is ever loaded, whatever a record says."""
    data: Path = Path("data/serving")
    """This replica's own folder: the compiled Feast registry."""

    doors: Literal["both", "http", "kafka"] = "both"
    """Where this replica is asked. In a cluster each door may be a deployment of its own, that scales on its own load; every
    replica knows the same models. gRPC goes with HTTP."""
    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port, on the same host, of the Open Inference Protocol over gRPC. None: not served, as most clients speak HTTP."""
    request_timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds for the answer to a request over HTTP or gRPC that names no deadline itself: above the 2 s for which the online
    store is waited for twice over, below what callers wait."""
    trust_known_at: bool = False
    """Honour the request header `ce-knownat`: a question is answered as of then. For a mill that replays the past, where a
    question of today would carry the time of every window with it."""
    model_threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of one model run. With more than one, onnxruntime may add up a lone row's trees in another order than a
    batch's, and the same question could get another last digit; scale with replicas first."""
    model_memory: Annotated[int, Field(ge=1)] | None = None
    """MiB that all loaded models of one process may take together, as measured when each was loaded; those of the loops that
    were asked least recently are unloaded for others, and loaded again for their next question. A new version is loaded beside
    the old, so leave room for the largest loop. None: whatever they take, as most projects have few loops."""
    models_timeout: Annotated[float, Field(gt=0)] = 20.0
    """Seconds that a batch waits for the models at start before it is given back and read again."""

    def of_worker(self, number: int) -> dict[str, str]:
        return {**super().of_worker(number), "MILLSTREAM_DATA": str(self.data / f"worker-{number}")}

    def ports_beside(self) -> Sequence[int]:
        return () if self.grpc_port is None else (self.grpc_port,)


class ScoreSettings(BaseSettings):
    """What `python -m millstream_serving score` needs to know of its mill; the rest are its options."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_", frozen=True, extra="ignore")

    kafka: Annotated[str, Field(min_length=1)] = "127.0.0.1:9092"
    """Where the champion is looked up; not asked where a version is named."""
    project: Path = Path("project")
    """Folder with streams/, features/, loops/."""
    packages: str = "packages"
    """Folder of the model packages."""
    lake: str = "lake"
    """Where features keeps history: a folder or URI. Read for --features lookup."""
