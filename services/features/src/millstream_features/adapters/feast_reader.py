"""Feast's own view of the project: definitions for the tiles, and the online read that its feature server speaks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from millstream.errors import RejectEvent
from millstream.project import FeatureCatalogue
from millstream_features.errors import StoreUnavailable
from millstream_tiles.definition import View


class FeastReader:
    """A FeatureStore on the project's definitions. Opening imports Feast (seconds): do it off the event loop."""

    def __init__(self, *, repo: Path, registry: Path, valkey: str, namespace: str, lake: str) -> None:
        from millstream_tiles.feast_views import views_of
        from millstream_tiles.registry import catalogue_of, open_store

        registry.parent.mkdir(parents=True, exist_ok=True)
        self._store = open_store(
            repo,
            registry=registry,
            online={"url": valkey, "namespace": namespace},
            offline={"lake": lake},
        )
        self.catalogue: FeatureCatalogue = catalogue_of(self._store)
        self.views: tuple[View, ...] = tuple(views_of(self._store).values())

    def read(
        self,
        *,
        features: Sequence[str] | None,
        service: str | None,
        entities: dict[str, list[Any]],
        full_names: bool,
        as_of: datetime | None,
    ) -> dict[str, Any]:
        """What Feast's feature server answers: `{metadata: {feature_names}, results: [{values, statuses, …}]}`.

        Blocks. Raises RejectEvent("unknown_feature" | "bad_entities"), StoreUnavailable.
        """
        from feast.errors import FeastError
        from google.protobuf.json_format import MessageToDict

        from millstream_tiles import as_of as at
        from millstream_tiles import errors as tiles_errors

        try:
            wanted: Any = self._store.get_feature_service(service) if service else list(features or [])
            with at(as_of) if as_of is not None else nullcontext():
                response = self._store.get_online_features(
                    features=wanted, entity_rows=_rows(entities), full_feature_names=full_names
                )
        except tiles_errors.StoreUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        except FeastError as error:
            raise RejectEvent("unknown_feature", str(error)) from error
        except (KeyError, ValueError) as error:
            raise RejectEvent("bad_entities", str(error)) from error
        answer: dict[str, Any] = MessageToDict(response.proto, preserving_proto_field_name=True)
        return answer


def _rows(entities: dict[str, list[Any]]) -> list[dict[str, Any]]:
    lengths = {len(values) for values in entities.values()}
    if len(lengths) != 1:
        raise RejectEvent("bad_entities", f"entity columns must have one length; got {sorted(lengths)}")
    return [dict(zip(entities, row, strict=True)) for row in zip(*entities.values(), strict=True)]
