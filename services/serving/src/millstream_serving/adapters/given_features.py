"""Features that come with the rows: nothing is looked up, and nothing here could compute them otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.contracts.package import Manifest
from millstream_serving.domain.columns import FeatureValues
from millstream_serving.errors import FeaturesUnavailable


class GivenFeatures:
    """`ports.Features` and `ports.FeatureStore` of one model, whose features are what its manifest says they are."""

    join_keys: Sequence[str] = ()
    streams: Mapping[str, str] = {}

    def __init__(self, manifest: Manifest) -> None:
        self.names: Sequence[str] = [column.name for column in manifest.inputs if column.source == "feature"]
        self.views: Mapping[str, str] = manifest.views

    async def applied(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        return {}

    async def read(self, entities: Mapping[str, Sequence[Scalar]], as_of: NDArray[np.int64]) -> FeatureValues:
        raise FeaturesUnavailable("features are given here, not looked up")

    async def prepare(self) -> None:
        """Nothing to read."""

    async def check(self) -> None:
        """Nothing to reach."""

    async def open(self, service: str) -> GivenFeatures:
        return self

    async def close(self) -> None:
        """Nothing is held."""
