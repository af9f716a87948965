"""Every knob of drift, with its reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.settings import ServiceSettings


class Settings(ServiceSettings, RegistrySettings):
    valkey: str = "redis://127.0.0.1:6379/0"
    """Where the state is kept: Redis 7 or newer, or Valkey; a cluster as redis+cluster://host:6379,host:6379."""
    namespace: str = "millstream"
    """Prefix of every key, so that several projects can share a server."""
    packages: str = "packages"
    """Folder of the model packages that trainer writes."""
    data: Path = Path("data/drift")
    """This replica's own folder: the reports."""

    shares: int = Field(default=1, ge=1, le=32)
    """Parts into which the loops are divided, each a consumer group that one replica hears whole: so many replicas work at
    most. Every share reads all predictions, so no more than it takes. The same for every replica."""
    snapshot_every: float = 2.0
    """Seconds between two snapshots, when something changed. A crash reads again what came since; encoding one takes
    some 20 ms for 50,000 waiting questions."""
    model_patience: float = 60.0
    """Seconds to wait for the reference of a version that nobody has announced yet; then its rows are judged by nobody."""
    report_workers: int = Field(default=2, ge=1, le=16)
    """Processes that draw reports and compare texts and embeddings, side by side. With one, what hangs would hold up every loop
    until its deadline; each takes some 330 MB for some seconds, at the lowest priority."""
    report_timeout: float = 120.0
    """Seconds for one Evidently report, or one comparison. 50,000 rows take 4 s on a free core, and it runs at the lowest
    priority."""
    reports_kept: int = 200
    """Newest reports that stay; each is about 5 MB, so 1 GB."""
