"""Runs ingest: `python -m millstream_ingest`."""

import sys

from millstream.runtime.service import main
from millstream_ingest.app import create_app
from millstream_ingest.settings import IngestSettings

if __name__ == "__main__":
    sys.exit(
        main(
            "ingest",
            "ingest accepts: events over HTTP, checked, into Kafka.",
            create_app,
            IngestSettings,
        )
    )
