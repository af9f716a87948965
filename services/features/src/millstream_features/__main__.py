"""Runs features: `python -m millstream_features`."""

import sys

from millstream.runtime.service import main
from millstream_features.app import create_app
from millstream_features.settings import Settings

if __name__ == "__main__":
    sys.exit(
        main("features", "features remembers: every event in the lake, every window in Valkey.", create_app, Settings)
    )
