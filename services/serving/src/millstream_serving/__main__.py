"""Runs serving: `python -m millstream_serving`; scores a table: `python -m millstream_serving score`."""

import sys


def main() -> int:
    if sys.argv[1:2] == ["score"]:
        # Imported here: a job needs no web server, and the service no Parquet.
        from millstream_serving.adapters import score_job

        return score_job.main(sys.argv[2:])
    from millstream.runtime import service
    from millstream_serving.app import create_app
    from millstream_serving.settings import Settings

    description = "serving answers: the questions of every loop, over Kafka and HTTP. `score --help`: a table at once."
    return service.main("serving", description, create_app, Settings)


if __name__ == "__main__":
    sys.exit(main())
