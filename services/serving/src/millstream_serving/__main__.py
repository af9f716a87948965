"""Runs serving: `python -m millstream_serving`."""

import sys

from millstream.runtime.service import main
from millstream_serving.app import create_app
from millstream_serving.settings import Settings

if __name__ == "__main__":
    sys.exit(
        main("serving", "serving answers: the questions of every loop, over Kafka and HTTP.", create_app, Settings)
    )
