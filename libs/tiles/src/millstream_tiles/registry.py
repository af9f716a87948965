"""Opens a user's plain Feast repo folder without materializing anything and without touching a network."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feast import Entity, FeatureStore, FeatureView, OnDemandFeatureView, RepoConfig
from feast.base_feature_view import BaseFeatureView
from feast.errors import FeastError
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.value_type import ValueType
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from millstream_tiles.definition import View
from millstream_tiles.errors import BadRepo, BadView, RepoFault, TilesError
from millstream_tiles.feast_views import columns_in, is_windowed, problems_of, schema_of, view_of, views_of
from millstream_tiles.repo_files import definitions, every_place, places, quiet


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What a Feast repo offers."""

    project: str
    views: Mapping[str, View]
    """Windowed views, which Millstream computes."""
    ordinary_views: tuple[str, ...]
    """Views that Feast serves itself."""
    services: Mapping[str, tuple[str, ...]]
    """FeatureService -> the columns that a model sees of its features, "view__feature", in order."""
    places: Mapping[str, tuple[str, int]]
    """File in the repo and line of each windowed view that was found there by its name."""


def open_store(
    repo: Path,
    *,
    registry: Path | None = None,
    online: Mapping[str, Any] | None = None,
    offline: Mapping[str, Any] | None = None,
) -> FeatureStore:
    """The FeatureStore of the folder `repo` (feature_store.yaml and *.py), its definitions applied to a registry file.

    `registry` is that file (each process its own; None: a temporary one that lives as long as the store). `online` and
    `offline` are laid over the stores' sections of the yaml: addresses, namespaces; a relative folder of the lake is one
    from where the caller stands there, and one from `repo` in the yaml. Views with aggregations need no schema, and
    entities no value type (string). Raises BadRepo, with every file that cannot be loaded and every view that
    cannot be computed.
    """
    objects, broken = definitions(repo)
    return store_of(repo, objects, broken, registry=registry, online=online, offline=offline)


def store_of(
    repo: Path,
    objects: Sequence[Any],
    broken: Sequence[RepoFault] = (),
    *,
    registry: Path | None = None,
    online: Mapping[str, Any] | None = None,
    offline: Mapping[str, Any] | None = None,
) -> FeatureStore:
    """`open_store` with `objects` in place of those in the folder's files, and what is `broken` there."""
    home = None
    if registry is None:
        home = Path(tempfile.mkdtemp(prefix="millstream-registry-"))
        registry = home / "registry.db"
    config, faults = _config(repo, registry, online or {}, offline or {})
    faults += [*broken, *_view_faults(repo, objects, complete=not broken)]
    if config is None or faults:
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)
        raise BadRepo(repo, faults, _computable(objects, complete=not broken))
    registry.parent.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(config=config, repo_path=str(repo))
    if home is not None:
        weakref.finalize(store, shutil.rmtree, home, ignore_errors=True)
    for thing in objects:
        _complete(thing)
    _complete_sources(objects)
    try:
        with quiet():
            store.apply(objects)
    except TilesError:
        raise
    except Exception as error:
        remedy = "correct it; `feast plan` in features/ shows the whole traceback"
        message = f"Feast refuses the definitions: {' '.join(str(error).split())}"
        fault = RepoFault(message=message, remedy=remedy)
        raise BadRepo(repo, [fault], _computable(objects, complete=True)) from error
    views_of(store)
    return store


def describe(repo: Path) -> Catalogue:
    """What the repo offers, without any server. Raises BadRepo as `open_store`."""
    return catalogue_of(open_store(repo))


def catalogue_of(store: FeatureStore) -> Catalogue:
    """What an open store offers; `load_project` checks streams and loops against it."""
    services = {}
    views = views_of(store)
    for service in store.list_feature_services():
        services[service.name] = tuple(c for p in service.feature_view_projections for c in columns_in(p, views))
    ordinary = [v.name for v in store.list_all_feature_views() if not is_windowed(v)]
    return Catalogue(
        project=store.project,
        views=views,
        ordinary_views=tuple(sorted(ordinary)),
        services=services,
        places=places(Path(store.repo_path), views),
    )


def _from_here(offline: Mapping[str, Any]) -> dict[str, Any]:
    lake = offline.get("lake")
    if not isinstance(lake, str) or "://" in lake:
        return dict(offline)
    return dict(offline) | {"lake": str(Path(lake).absolute())}


def _config(
    repo: Path, registry: Path, online: Mapping[str, Any], offline: Mapping[str, Any]
) -> tuple[RepoConfig | None, list[RepoFault]]:
    """The configuration of feature_store.yaml, or what is wrong with it."""
    path, file = repo / "feature_store.yaml", "feature_store.yaml"
    try:
        text = path.read_text()
        spec = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else None
        problem = f"is not YAML ({error.problem or error.context}); check indentation, quotes and colons here"
        return None, [RepoFault.of(problem, file=file, line=line)]
    except (OSError, ValueError, YAMLError) as error:
        return None, [RepoFault.of(f"cannot be read ({error}); make it a readable YAML file", file=file)]
    if not isinstance(spec, dict) or not spec.get("project"):
        return None, [RepoFault.of("no project; write 'project: <name>'", file=file)]
    spec["registry"] = {"registry_type": "file", "path": str(registry.resolve())}
    spec["online_store"] = _section(spec.get("online_store")) | dict(online)
    spec["offline_store"] = _section(spec.get("offline_store")) | _from_here(offline)
    spec = {"provider": "local", "entity_key_serialization_version": 3} | {k: v for k, v in spec.items() if v != {}}
    try:
        with quiet():
            return RepoConfig(**spec, repo_path=repo), []
    except ValidationError as error:
        wrong = [
            (".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, "))
            for detail in error.errors(include_url=False)
        ]
    except (ValueError, FeastError) as error:
        wrong = [("", str(error))]
    return None, [_config_fault(text, path, message) for path, message in wrong]


def _config_fault(text: str, path: str, message: str) -> RepoFault:
    """What Feast says about one of its settings, at the first line that has such a key."""
    key = re.compile(rf"(^|[\s{{,]){re.escape(path.rpartition('.')[2])}\s*:")
    line = next((number for number, line in enumerate(text.splitlines(), 1) if key.search(line)), None)
    remedy = "write what Feast's documentation of feature_store.yaml allows there"
    return RepoFault(file="feature_store.yaml", line=line, path=path, message=message.rstrip("."), remedy=remedy)


def _section(value: Any) -> dict[str, Any]:
    """A store's section; Feast also takes a bare type there."""
    return {"type": value} if isinstance(value, str) else dict(value or {})


def _view_faults(repo: Path, objects: Sequence[Any], *, complete: bool) -> list[RepoFault]:
    """What is wrong with the views themselves; unless the objects are `complete`, an entity may be where nobody looked."""
    entities = {thing.name: thing for thing in objects if isinstance(thing, Entity)}
    problems: list[tuple[str, str]] = []
    for thing in objects:
        # Feast finds an entity only by a variable of its own, and otherwise fails over something else.
        for name in thing.entities if complete and isinstance(thing, FeatureView) else ():
            if name not in entities and name != DUMMY_ENTITY_NAME:
                problem = f"entity {name!r} is in no variable; write {name} = Entity(...), entities=[{name}]"
                problems.append((thing.name, problem))
        if is_windowed(thing):
            problems += [(thing.name, problem) for problem in problems_of(thing, entities)]
    where = places(repo, {view for view, _ in problems})
    faults = _double_names(repo, objects)
    for view, problem in problems:
        file, line = where.get(view, ("", None))
        faults.append(RepoFault.of(problem, file=file, line=line, path=view))
    return faults


def _double_names(repo: Path, objects: Sequence[Any]) -> list[RepoFault]:
    """Names of several views. Feast takes capitals for small letters, and tells of the first alone."""
    named: dict[str, list[str]] = {}
    for thing in objects:
        if isinstance(thing, BaseFeatureView):
            named.setdefault(thing.name.lower(), []).append(thing.name)
    faults = []
    where = every_place(repo) if any(len(names) > 1 for names in named.values()) else {}
    for names in (names for names in named.values() if len(names) > 1):
        spots = sorted(spot for name in set(names) for spot in where.get(name, ()))
        file, line = spots[-1] if spots else ("", None)
        others = f", another in {spots[0][0]}:{spots[0][1]}" if len(spots) > 1 else ""
        message = f"{len(names)} views have this name{others}"
        faults.append(
            RepoFault(file=file, line=line, path=names[-1], message=message, remedy="give each one of its own")
        )
    return faults


def _computable(objects: Sequence[Any], *, complete: bool) -> dict[str, View]:
    """The windowed views without a fault; unless the objects are `complete`, those whose entities are all there."""
    entities = {thing.name: thing for thing in objects if isinstance(thing, Entity)}
    found = {}
    for thing in objects:
        if is_windowed(thing) and (complete or entities.keys() >= set(thing.entities)):
            with suppress(BadView):
                found[thing.name] = view_of(thing, entities)
    return found


def _complete(thing: Any) -> None:
    """What Feast would infer by reading a batch source: the columns of windowed views, the types of keys."""
    if isinstance(thing, Entity) and thing.value_type is ValueType.UNKNOWN:
        thing.value_type = ValueType.STRING
    elif is_windowed(thing) and not thing.features:
        thing.features = schema_of(thing.aggregations)


def _complete_sources(objects: Sequence[Any]) -> None:
    """An on-demand view took over its sources' columns when the file was read, before windowed views had any."""
    views = {thing.name: thing for thing in objects if is_windowed(thing)}
    for thing in objects:
        if isinstance(thing, OnDemandFeatureView):
            for projection in thing.source_feature_view_projections.values():
                if projection.name in views and not projection.features:
                    projection.features = list(views[projection.name].features)
