"""Runs ingest: `python -m millstream_ingest`."""

from __future__ import annotations

import sys

from millstream.runtime.service import arguments, serve
from millstream_ingest.app import create_app
from millstream_ingest.settings import IngestSettings


def main() -> int:
    arguments("ingest", "ingest accepts: events over HTTP, checked against their stream's schema, into Kafka.")
    settings = IngestSettings()
    return serve(lambda: create_app(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
