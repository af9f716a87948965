"""The Feast job that questions about the past become: computed when somebody wants the result, kept as a file on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from feast import FileSource, OnDemandFeatureView
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from millstream_tiles.errors import TilesError

EVENT_TIMESTAMP = "event_timestamp"
"""The column of a question's time, unless the frame has exactly one datetime column of another name (Feast's rule)."""


class MillstreamRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """Computes when it is asked for the result; rows come in the order of the questions."""

    def __init__(
        self,
        compute: Callable[[], pd.DataFrame],
        *,
        full_feature_names: bool,
        on_demand: list[OnDemandFeatureView],
        metadata: RetrievalMetadata,
        repo: str,
        time_column: str,
    ) -> None:
        """`repo` is the folder from which the paths of saved datasets are counted."""
        self._compute = compute
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand
        self._metadata = metadata
        self._repo = repo
        self._time_column = time_column

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to one Parquet file: what `store.create_saved_dataset` calls.

        Raises SavedDatasetLocationAlreadyExists unless `allow_overwrite`, TilesError for a storage that is no file and
        for questions whose column of time Feast would not find again.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            given = type(storage).__name__
            raise TilesError(
                f"{given}: a dataset is saved as Parquet; give storage=SavedDatasetFileStorage('name.parquet')"
            )
        if self._time_column != EVENT_TIMESTAMP:
            raise TilesError(
                f"Feast reads a saved dataset back by its column {EVENT_TIMESTAMP!r}; rename {self._time_column!r} to it"
            )
        options = storage.file_options
        uri = FileSource.get_uri_for_file_path(repo_path=self._repo, uri=options.uri)
        filesystem, path = FileSource.create_filesystem_and_path(str(uri), options.s3_endpoint_override)
        filesystem = filesystem or pyarrow.fs.LocalFileSystem()
        there = filesystem.get_file_info(path).type is not pyarrow.fs.FileType.NotFound
        if there and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=options.uri)
        if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.to_arrow(), where=path, filesystem=filesystem)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._compute()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return pa.Table.from_pandas(self._compute(), preserve_index=False)
