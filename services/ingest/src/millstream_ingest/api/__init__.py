"""HTTP doorway of ingest: streams and their events, and the one table from refusals to status codes."""

from millstream_ingest.api.answers import STATUS
from millstream_ingest.api.doorway import Doorway

__all__ = ["STATUS", "Doorway"]
