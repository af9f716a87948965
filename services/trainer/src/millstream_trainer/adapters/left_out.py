"""What a run does not learn from, and how it says so: rows of broken inputs and labels, labels that contradict each other."""

from __future__ import annotations

from dataclasses import replace

from millstream.contracts.times import from_datetime
from millstream.project import Loop
from millstream_trainer.domain.broken import BROKEN_INPUTS, BROKEN_LABELS
from millstream_trainer.domain.dataset import CONTRADICTING, WITHOUT_QUESTION, Dataset
from millstream_trainer.domain.run import RunSpec

LAST = 3
"""Spells that are told with their times."""


def whole(spec: RunSpec, data: Dataset) -> Dataset:
    """The rows that were asked while inputs were whole."""
    table = data.table.without((from_datetime(start), from_datetime(end)) for start, end in spec.broken)
    if table is data.table:
        return data
    return replace(data, table=table, left_out={**data.left_out, BROKEN_INPUTS: len(data.table) - len(table)})


def in_words(spec: RunSpec, loop: Loop, data: Dataset) -> list[str]:
    """What a run's reason and notes say of it; nothing where all was learned."""
    said = (
        (BROKEN_INPUTS, "asked while inputs were broken", spec.broken),
        (BROKEN_LABELS, "labelled while labels were broken", spec.broken_labels),
    )
    notes = []
    for reason, what, spells in said:
        if rows := data.left_out.get(reason):
            last = ", ".join(f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" for start, end in spells[-LAST:])
            many = f"{len(spells)} times, the last: " if len(spells) > LAST else ""
            notes.append(f"{rows} rows {what} are left out ({many}{last})")
    if told := data.left_out.get(CONTRADICTING):
        notes.append(f"{told} labels say something else than the first of their question, which is learned")
    if told := data.left_out.get(WITHOUT_QUESTION):
        where = f"questions of {loop.predict.on} in the run's history"
        notes.append(f"{told} labels by prediction id are not learned: they are about no {where}")
    return notes
