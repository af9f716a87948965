"""Runs drift: `python -m millstream_drift`."""

from __future__ import annotations

import sys

from millstream.runtime.service import arguments, serve
from millstream_drift.app import create_app
from millstream_drift.settings import Settings


def main() -> int:
    arguments("drift", "drift judges: joins predictions with labels, compares windows with the model's reference.")
    settings = Settings()
    return serve(lambda: create_app(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
