"""Charts of a run, for MLflow: what the gate's numbers look like."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # without pyplot, which keeps figures and may want a screen

from millstream.contracts.tasks import Task, metric_of
from millstream_trainer.domain.answers import Answers
from millstream_trainer.domain.gate import Evidence

SHOWN = 20
"""Bars of a chart: the longest."""
BINS = 10


def charts(evidence: Evidence, importance: Mapping[str, float]) -> dict[str, bytes]:
    """File name → PNG."""
    said = {"challenger": evidence.challenger}
    if evidence.champion is not None:
        said["champion"] = evidence.champion
    found = {"importance.png": _importance(importance)}
    task = evidence.challenger.task
    if task is Task.REGRESSION:
        found["calibration.png"] = _numbers(evidence.labels, said)
    elif task is Task.BINARY:
        found["calibration.png"] = _calibration(evidence.labels, said)
        found["roc.png"] = _roc(evidence.labels, said)
    else:
        hits = {name: _sureness(answers) for name, answers in said.items()}
        right = evidence.challenger.likeliest() == evidence.labels
        found["calibration.png"] = _calibration(right, {"challenger": hits["challenger"]})
    if evidence.slices:
        found["slices.png"] = _slices(evidence, said)
    return found


def _importance(importance: Mapping[str, float]) -> bytes:
    ranked = sorted(importance.items(), key=lambda pair: pair[1])[-SHOWN:]
    figure, axes = _page("importance", height=1 + 0.25 * len(ranked))
    axes.barh([name for name, _ in ranked], [share for _, share in ranked])
    axes.set_xlabel("share")
    return _png(figure)


def _calibration(labels: Any, said: Mapping[str, Answers]) -> bytes:
    figure, axes = _page("calibration on the holdout")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, answers in said.items():
        order = np.argsort(answers.values, kind="stable")
        groups = [group for group in np.array_split(order, BINS) if len(group)]
        x = [float(answers.values[g].mean()) for g in groups]
        axes.plot(x, [float(np.mean(labels[g])) for g in groups], marker="o", label=name)
    axes.set_xlabel("said")
    axes.set_ylabel("came true")
    axes.legend()
    return _png(figure)


def _sureness(answers: Answers) -> Answers:
    """Probability of the likeliest class."""
    return Answers(task=Task.BINARY, values=np.max(answers.values, axis=1))


def _numbers(labels: Any, said: Mapping[str, Answers]) -> bytes:
    figure, axes = _page("said and seen on the holdout")
    for name, answers in said.items():
        order = np.argsort(answers.values, kind="stable")
        groups = [group for group in np.array_split(order, BINS) if len(group)]
        x = [float(answers.values[g].mean()) for g in groups]
        axes.plot(x, [float(np.mean(labels[g])) for g in groups], marker="o", label=name)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
    axes.set_xlabel("said")
    axes.set_ylabel("mean of what came")
    axes.legend()
    return _png(figure)


def _roc(labels: Any, said: Mapping[str, Answers]) -> bytes:
    figure, axes = _page("ROC on the holdout")
    for name, answers in said.items():
        true = labels[np.argsort(-answers.values, kind="stable")] == 1
        hits, misses = np.cumsum(true), np.cumsum(~true)
        axes.plot(np.append(0, misses / max(misses[-1], 1)), np.append(0, hits / max(hits[-1], 1)), label=name)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set_xlabel("false positives")
    axes.set_ylabel("true positives")
    axes.legend()
    return _png(figure)


def _slices(evidence: Evidence, said: Mapping[str, Answers]) -> bytes:
    largest = sorted(evidence.slices, key=lambda one: -int(one.rows.sum()))[:SHOWN]
    figure, axes = _page("slices of the holdout", height=1 + 0.4 * len(largest))
    width = 0.8 / len(said)
    for place, (name, answers) in enumerate(said.items()):
        losses = answers.losses(evidence.labels)
        at = np.arange(len(largest)) + place * width
        axes.barh(at, [float(losses[one.rows].mean()) for one in largest], height=width, label=name)
    axes.set_yticks(np.arange(len(largest)), [f"{one.name} ({int(one.rows.sum())})" for one in largest])
    axes.set_xlabel(metric_of(evidence.challenger.task).replace("_", " "))
    axes.legend()
    return _png(figure)


def _page(title: str, height: float = 4.5) -> tuple[Any, Any]:
    figure = Figure(figsize=(6, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _png(figure: Any) -> bytes:
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=100)
    return raw.getvalue()
