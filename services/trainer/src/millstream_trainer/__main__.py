"""python -m millstream_trainer"""

import sys


def main() -> int:
    # Imported here: a training process imports this module again (multiprocessing does), and needs no web server.
    from millstream.runtime.service import arguments, serve
    from millstream_trainer.app import create_app
    from millstream_trainer.settings import Settings

    arguments("trainer", __doc__ or "")
    settings = Settings()
    return serve(lambda: create_app(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
