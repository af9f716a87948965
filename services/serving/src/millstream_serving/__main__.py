"""python -m millstream_serving"""

import sys

from millstream.runtime.service import arguments, serve
from millstream_serving.app import create_app
from millstream_serving.settings import Settings

if __name__ == "__main__":
    arguments("serving", "Answers the questions of every loop, over Kafka and HTTP.")
    settings = Settings()
    sys.exit(serve(lambda: create_app(settings), settings))
