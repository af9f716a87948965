"""Runs drift: `python -m millstream_drift`."""

import sys

from millstream.runtime.service import main
from millstream_drift.app import create_app
from millstream_drift.settings import Settings

if __name__ == "__main__":
    sys.exit(
        main(
            "drift",
            "drift judges: labels against predictions, windows against references.",
            create_app,
            Settings,
        )
    )
