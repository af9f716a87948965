"""Runs the trainer: `python -m millstream_trainer`."""

import sys


def main() -> int:
    # Imported here: a training process imports this module again (multiprocessing does), and needs no web server.
    from millstream.runtime import service
    from millstream_trainer.app import create_app
    from millstream_trainer.settings import Settings

    description = "trainer learns: decides on verdicts, trains in a process of its own, promotes what passes the gate."
    return service.main("trainer", description, create_app, Settings)


if __name__ == "__main__":
    sys.exit(main())
