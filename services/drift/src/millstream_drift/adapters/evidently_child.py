"""Draws one Evidently report: run as a process of its own, so that neither its seconds nor its memory are drift's.

python -m millstream_drift.adapters.evidently_child JOB HTML
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import msgspec

from millstream.contracts.events import Scalar

REFERENCE_ROWS = 5_000
"""Rows of either side that are drawn. Evidently keeps raw values in the page, and eyes see no difference above this."""


class DrawnJob(msgspec.Struct, kw_only=True):
    """What the parent hands over."""

    types: dict[str, str]
    current: dict[str, list[Scalar]]
    reference: dict[str, list[Scalar]]


def drawable(job: DrawnJob) -> dict[str, str]:
    """Columns that both sides have a value of; Evidently refuses a report with an empty column altogether."""
    return {
        name: kind
        for name, kind in job.types.items()
        if all(any(value is not None for value in side.get(name, ())) for side in (job.current, job.reference))
    }


def draw(job: DrawnJob, html: Path) -> None:
    """Write the report. Raises ValueError where no column can be drawn."""
    types = drawable(job)
    if not types:
        raise ValueError("no column has values in both the window and the reference")
    warnings.simplefilter("ignore")
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    def frame(side: dict[str, list[Scalar]]) -> pd.DataFrame:
        columns = {}
        for name, kind in types.items():
            values = side[name]
            step = -(-len(values) // REFERENCE_ROWS)
            kept = values[:: max(1, step)]
            columns[name] = pd.Series(kept, dtype="float64" if kind == "number" else "object")
        return pd.DataFrame(columns)

    definition = DataDefinition(
        numerical_columns=[name for name, kind in types.items() if kind == "number"],
        categorical_columns=[name for name, kind in types.items() if kind != "number"],
    )
    # The same measure as ours, so that page and verdict speak of one thing.
    report = Report([DataDriftPreset(num_method="psi", cat_method="psi")])
    result = report.run(
        Dataset.from_pandas(frame(job.current), data_definition=definition),
        Dataset.from_pandas(frame(job.reference), data_definition=definition),
    )
    result.save_html(str(html))


def main() -> int:
    job, html = Path(sys.argv[1]), Path(sys.argv[2])
    draw(msgspec.msgpack.decode(job.read_bytes(), type=DrawnJob), html)
    return 0


if __name__ == "__main__":
    sys.exit(main())
