"""python -m millstream_features"""

import sys

from millstream.runtime.service import arguments, serve
from millstream_features.app import create_app
from millstream_features.settings import Settings

if __name__ == "__main__":
    arguments("features", __doc__ or "")
    settings = Settings()
    sys.exit(serve(lambda: create_app(settings), settings))
