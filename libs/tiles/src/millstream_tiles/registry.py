"""Opens a user's plain Feast repo folder without materializing anything and without touching a network."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from feast import BatchFeatureView, Entity, FeatureService, FeatureStore, FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.errors import FeastError
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.project import Project
from feast.repo_operations import get_repo_files
from feast.stream_feature_view import StreamFeatureView
from feast.value_type import ValueType
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from millstream_tiles.definition import View
from millstream_tiles.errors import BadRepo, BadView, TilesError
from millstream_tiles.feast_views import is_windowed, schema_of, views_of

_KINDS = (
    DataSource,
    FeatureView,
    BatchFeatureView,
    StreamFeatureView,
    Entity,
    FeatureService,
    OnDemandFeatureView,
    Project,
)
_LOADING = threading.Lock()
"""Definitions are imported under their own names with the repo on sys.path, so one repo at a time."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What a Feast repo offers."""

    project: str
    views: Mapping[str, View]
    """Windowed views, which Millstream computes."""
    ordinary_views: tuple[str, ...]
    """Views that Feast serves itself."""
    services: Mapping[str, tuple[str, ...]]
    """FeatureService -> its features as "view__feature", in order."""


def open_store(
    repo: Path,
    *,
    registry: Path | None = None,
    online: Mapping[str, Any] | None = None,
    offline: Mapping[str, Any] | None = None,
) -> FeatureStore:
    """The FeatureStore of the folder `repo` (feature_store.yaml and *.py), its definitions applied to a registry file.

    `registry` is that file (each process its own; None: a temporary one that lives as long as the store). `online` and
    `offline` are laid over the stores' sections of the yaml: addresses, namespaces. Views with aggregations need no
    schema, and entities no value type (string). Raises BadRepo for a folder that cannot be read, BadView for a view that
    cannot be computed.
    """
    home = None
    if registry is None:
        home = Path(tempfile.mkdtemp(prefix="millstream-registry-"))
        registry = home / "registry.db"
    registry.parent.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(config=_config(repo, registry, online or {}, offline or {}), repo_path=str(repo))
    if home is not None:
        weakref.finalize(store, shutil.rmtree, home, ignore_errors=True)
    objects = definitions(repo)
    entities = {thing.name for thing in objects if isinstance(thing, Entity)}
    for thing in objects:
        _check_entities(thing, entities)
        _complete(thing)
    try:
        with _quiet():
            store.apply(objects)
    except TilesError:
        raise
    except Exception as error:
        raise BadRepo(f"{repo}: Feast refuses the definitions: {error}") from error
    views_of(store)
    return store


def describe(repo: Path) -> Catalogue:
    """What the repo offers, without any server. Raises BadRepo and BadView as `open_store`."""
    return catalogue_of(open_store(repo))


def catalogue_of(store: FeatureStore) -> Catalogue:
    """What an open store offers; `load_project` checks streams and loops against it."""
    services = {}
    for service in store.list_feature_services():
        names = [(p.name_to_use(), f.name) for p in service.feature_view_projections for f in p.features]
        services[service.name] = tuple(f"{view}__{feature}" for view, feature in names)
    ordinary = [v.name for v in store.list_all_feature_views() if not is_windowed(v)]
    return Catalogue(
        project=store.project, views=views_of(store), ordinary_views=tuple(sorted(ordinary)), services=services
    )


def definitions(repo: Path) -> list[Any]:
    """The Feast objects that the repo's Python files define, each once."""
    found: dict[int, Any] = {}
    with _LOADING, _importing(repo), _quiet():
        for file in get_repo_files(repo):
            name = ".".join(file.relative_to(repo.resolve()).with_suffix("").parts)
            try:
                module = importlib.import_module(name)
            except TilesError:
                raise
            except Exception as error:
                raise BadRepo(f"{file}: cannot be loaded: {type(error).__name__}: {error}") from error
            for thing in vars(module).values():
                if isinstance(thing, _KINDS):
                    found.setdefault(id(thing), thing)
    if not found:
        raise BadRepo(f"{repo}: no Feast definitions; write views and services in a file like definitions.py")
    return list(found.values())


def _config(repo: Path, registry: Path, online: Mapping[str, Any], offline: Mapping[str, Any]) -> RepoConfig:
    path = repo / "feature_store.yaml"
    try:
        spec = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        raise BadRepo(f"{path}: cannot be read: {error}") from error
    if not isinstance(spec, dict) or not spec.get("project"):
        raise BadRepo(f"{path}: no project; write 'project: <name>'")
    spec["registry"] = {"registry_type": "file", "path": str(registry.resolve())}
    spec["online_store"] = _section(spec.get("online_store")) | dict(online)
    spec["offline_store"] = _section(spec.get("offline_store")) | dict(offline)
    spec = {"provider": "local", "entity_key_serialization_version": 3} | {k: v for k, v in spec.items() if v != {}}
    try:
        with _quiet():
            return RepoConfig(**spec, repo_path=repo)
    except (ValidationError, ValueError, FeastError) as error:
        raise BadRepo(f"{path}: {error}") from error


def _section(value: Any) -> dict[str, Any]:
    """A store's section; Feast also takes a bare type there."""
    return {"type": value} if isinstance(value, str) else dict(value or {})


def _check_entities(thing: Any, entities: set[str]) -> None:
    """Feast finds an entity only by a variable of its own, and otherwise fails over something else."""
    for name in thing.entities if isinstance(thing, FeatureView) else ():
        if name not in entities and name != DUMMY_ENTITY_NAME:
            raise BadView(
                thing.name, f"entity {name!r} is in no variable; write {name} = Entity(...), entities=[{name}]"
            )


def _complete(thing: Any) -> None:
    """What Feast would infer by reading a batch source: the columns of windowed views, the types of keys."""
    if isinstance(thing, Entity) and thing.value_type is ValueType.UNKNOWN:
        thing.value_type = ValueType.STRING
    elif is_windowed(thing) and not thing.features:
        thing.features = schema_of(thing.aggregations)


@contextmanager
def _importing(repo: Path) -> Iterator[None]:
    """The repo's modules importable by their plain names; afterwards as if they had never been, bytecode neither."""
    before: dict[str, ModuleType] = dict(sys.modules)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(repo.resolve()))
    importlib.invalidate_caches()
    own = {_top(repo, f) for f in get_repo_files(repo)}
    for name in [n for n in sys.modules if n.partition(".")[0] in own]:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.path.remove(str(repo.resolve()))
        sys.dont_write_bytecode = bytecode
        for name in [n for n in sys.modules if n.partition(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update({n: m for n, m in before.items() if n.partition(".")[0] in own})


def _top(repo: Path, file: Path) -> str:
    return file.relative_to(repo.resolve()).with_suffix("").parts[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Feast's notice that an entity should have a type; we give it one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*value_type.*", category=DeprecationWarning)
        yield
