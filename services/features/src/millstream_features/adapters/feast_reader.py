"""Feast's own view of the project: definitions for the tiles, and the online read that its feature server speaks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.contracts.json_text import pointer
from millstream.errors import BadSetup, Refusal
from millstream.project import FeatureCatalogue
from millstream_features.adapters.feast_rows import FeastRows
from millstream_features.adapters.needed_columns import needed_columns
from millstream_features.errors import StoreUnavailable
from millstream_tiles.definition import View
from millstream_tiles.tile_store import ValkeyTileStore

if TYPE_CHECKING:
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

    from millstream_tiles.service_views import ServiceView


class FeastReader:
    """A FeatureStore on the project's definitions. Opening imports Feast (seconds): do it off the event loop."""

    def __init__(
        self, *, repo: Path, registry: Path, valkey: str, namespace: str, lake: str, shards: int | None = None
    ) -> None:
        """`shards` None: as the repo says. Raises BadSetup for a repo that cannot be used."""
        from millstream_tiles.errors import TilesError
        from millstream_tiles.feast_views import views_of
        from millstream_tiles.registry import catalogue_of, open_store

        registry.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._store = open_store(
                repo,
                registry=registry,
                online={"url": valkey, "namespace": namespace} | ({} if shards is None else {"shards": shards}),
                offline={"lake": lake},
            )
        except TilesError as error:
            raise BadSetup(str(error)) from error
        self.project: str = self._store.project
        self.rows = FeastRows(self._store)
        self.catalogue: FeatureCatalogue = catalogue_of(self._store)
        self.views: tuple[View, ...] = tuple(views_of(self._store).values())

    def tile_store(self) -> ValkeyTileStore:
        """Where the tiles are written that this reads."""
        from millstream_tiles.online_store import tile_store_of

        return tile_store_of(self._store.config)

    def service_views(self, service: str) -> list[ServiceView]:
        """The windowed views behind a FeatureService. Raises BadSetup when there is no such service."""
        from feast.errors import FeatureServiceNotFoundException

        from millstream_tiles.service_views import service_views

        try:
            return service_views(self._store, service)
        except FeatureServiceNotFoundException as error:
            raise BadSetup(str(error)) from error

    def read(self, **asked: Any) -> dict[str, Any]:
        """`ask`, as Feast's feature server says it in JSON."""
        from feast.feature_server_utils import convert_response_to_dict

        answer: dict[str, Any] = convert_response_to_dict(self.ask(**asked))
        return answer

    def ask(
        self,
        *,
        features: Sequence[str] | None,
        service: str | None,
        entities: dict[str, list[Any]],
        full_names: bool,
        with_versions: bool,
        as_of: datetime | None,
    ) -> GetOnlineFeaturesResponse:
        """What Feast's feature server answers: `{metadata: {feature_names}, results: [{values, statuses, event_timestamps}]}`.

        Blocks. Raises Refusal(`unknown_feature`, `bad_entities`, `bad_question`), StoreUnavailable.
        """
        from feast.errors import FeastError, FeastObjectNotFoundException

        from millstream_tiles import as_of as at
        from millstream_tiles import errors as tiles_errors

        rows = _rows(entities)
        self._refuse_no_keys(entities)
        try:
            wanted: Any = self._store.get_feature_service(service) if service else list(features or [])
            with at(as_of) if as_of is not None else nullcontext():
                response = self._store.get_online_features(
                    features=wanted,
                    entity_rows=rows,
                    full_feature_names=full_names,
                    include_feature_view_version_metadata=with_versions,
                )
        except tiles_errors.StoreUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        except FeastObjectNotFoundException as error:
            raise Refusal("unknown_feature", str(error)) from error
        except KeyError as error:
            raise Refusal("bad_question", self._missing(wanted, entities) or str(error.args[0])) from error
        except (FeastError, ValueError, TypeError, AssertionError) as error:
            # Feast takes a wrong type as far as it goes, and then names neither the entity nor its row.
            if misfit := self._misfit(entities):
                raise Refusal("bad_entities", misfit) from error
            if isinstance(error, (TypeError, AssertionError)):
                raise
            raise Refusal("bad_question", str(error)) from error
        answer: GetOnlineFeaturesResponse = response.proto
        return answer

    def _missing(self, wanted: Any, entities: dict[str, list[Any]]) -> str | None:
        """The columns that the question needs and does not bring, for a person."""
        needed = needed_columns(self._store, wanted)
        if missing := [name for name in needed if name not in entities]:
            lacks = f"entities: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
            return f"{lacks}; what is asked for needs {', '.join(needed)}"
        return None

    def _refuse_no_keys(self, entities: dict[str, list[Any]]) -> None:
        """The library answers a null key with empty windows; of a client over the network it is a mistake."""
        if not any(isinstance(value, list | dict | None) for values in entities.values() for value in values):
            return
        views = self._store.list_on_demand_feature_views()
        asked = {field.name for view in views for s in view.source_request_sources.values() for field in s.schema}
        if misfit := self._misfit({name: values for name, values in entities.items() if name not in asked}):
            raise Refusal("bad_entities", misfit)

    def _misfit(self, entities: dict[str, list[Any]]) -> str | None:
        """The first value that names no entity, for a person."""
        from feast.type_map import python_values_to_proto_values
        from feast.value_type import ValueType

        types = {entity.join_key: entity.value_type for entity in self._store.list_entities()}
        for name, values in entities.items():
            kind = types.get(name, ValueType.UNKNOWN)
            for row, value in enumerate(values):
                place = f"{pointer(['entities', name, row])} is"
                if value is None or isinstance(value, list | dict):
                    what = "null" if value is None else "an array" if isinstance(value, list) else "an object"
                    return f"{place} {what}; write a text or a number, or leave this row out"
                try:
                    python_values_to_proto_values([value], kind)
                except (ValueError, TypeError, AssertionError):
                    return f"{place} {str(value)[:100]!r}; {name} is of type {kind.name}"
        return None


def _rows(entities: dict[str, list[Any]]) -> list[dict[str, Any]]:
    lengths = {len(values) for values in entities.values()}
    if len(lengths) != 1:
        raise Refusal("bad_entities", f"entity columns must have one length; got {sorted(lengths)}")
    return [dict(zip(entities, row, strict=True)) for row in zip(*entities.values(), strict=True)]
