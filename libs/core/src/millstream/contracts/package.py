"""The model package: what trainer hands to serving and drift. A folder of `model.onnx`, `reference.json`, `manifest.json`.

Nothing in it is code and nothing is unpickled: the graph holds all preprocessing, the rest is JSON. Where a loop asks for warm
starts there is `native.json` too, and the model in its library's own format, which only the next training run reads.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from millstream.contracts.events import Cause, Scalar

MODEL_FILE = "model.onnx"
REFERENCE_FILE = "reference.json"
MANIFEST_FILE = "manifest.json"
NATIVE_FILE = "native.json"
REMOTE_FILE = "remote.json"
"""In place of the graph where the model runs elsewhere."""


class InputColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the graph, shape (n, 1): float32 for numbers (NaN is null), string for categories ("" is null)."""

    name: str
    source: str
    """`input` (a field of the asking event) or `feature` (`view__feature` from Feast)."""
    type: str
    """`number` or `category`."""


class RemoteInput(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor that a remote model is asked with."""

    name: str
    datatype: str
    """`FP32`, `FP64` or `BYTES`, as the Open Inference Protocol has it."""
    columns: list[str]
    """Columns of the manifest that lie in it side by side."""
    flat: bool = False
    """Shape (n,), of one column; else (n, columns)."""


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """A model that runs elsewhere, behind an endpoint of the Open Inference Protocol v2 that knows its binary tensors."""

    url: str
    """As `https://host/v2/models/NAME`, or with `/versions/VERSION` behind it."""
    inputs: list[RemoteInput]
    output: str
    """The tensor that answers."""
    second: bool = False
    """It has the chances of both classes, and the second column is that of true."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The field that a column is made of: an input's own, or what a feature aggregates."""

    stream: str
    field: str


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """When the questions of some rows were asked."""

    first: datetime
    last: datetime
    """Included."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted. The same on the same rows with the same libraries gives the same graph."""

    estimator: str
    params: dict[str, Any]
    """As the last fit took them: of all that competed and was searched the best, with the rounds that an early stop left."""
    seed: int
    candidate: str
    """The history that was learned, as `train.history` has it; `/2` behind it: with the second of `model.settings`."""
    since: datetime | None
    """Rows asked before are not learned. Null: all."""
    class_weight: str
    calibration: str
    warm_start: str = ""
    """The version that the fit went on from."""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from: enough to train it again."""

    cause: Cause
    request: str
    """Id of the verdict or request that led to the run."""
    at: datetime
    """Stream time up to which training looked."""
    positions: dict[str, dict[int, int]]
    """Last offset read, per stream and partition."""
    train_rows: int
    holdout_rows: int
    content_sha256: str
    """Of the training table, row by row: the same data gives the same hash."""
    code_version: str
    """Release of Millstream."""
    libraries: dict[str, str]
    recipe: Recipe | None = None
    """None: the model was made elsewhere, or by a release that kept none."""
    lake: str = ""
    """Where the rows are read, without what it takes to be let in."""
    train: Span | None = None
    holdout: Span | None = None
    project_sha256: str = ""
    """Of the project's files that decide anything: definitions, schemas and code."""
    commit: str = ""
    """Of the git repository that the project lies in; empty where there is none. What is not committed tells the hash above."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contract between trainer and serving."""

    format: int
    loop: str
    version: str
    run: str
    task: str
    inputs: list[InputColumn]
    """In the order of the graph's inputs."""
    output: str
    """Name of the graph's output, float32: `probability` (n,), `probabilities` (n, classes) or `value` (n,)."""
    feature_service: str
    views: dict[str, str]
    """Feature view → hash of its definition when the model was trained."""
    label: str
    metrics: dict[str, float]
    lineage: Lineage
    files: dict[str, str]
    """File → sha256."""
    classes: list[str] = []
    """Task multiclass: what the columns of the output stand for. Else empty."""
    origins: dict[str, Origin] = {}
    """Column → where its values come from, as far as that is known."""
    notes: list[str] = []
    """What a reader of `metrics` has to know of how the model was made: what it won against, calibration, a refit."""


class ColumnReference(msgspec.Struct, frozen=True, kw_only=True):
    """What one column looked like in training. Bins are shared by drift, so windows compare like with like."""

    name: str
    type: str
    importance: float
    """Share of the model's total gain, 0 to 1."""
    missing: float
    """Share of nulls."""
    edges: list[float] = []
    """Numbers: inner bin edges (deciles); bin i holds edges[i-1] < x <= edges[i]."""
    categories: list[str] = []
    """Categories: the known ones, most frequent first; the last share is for all others."""
    shares: list[float] = []
    """Share of each bin or category among the non-null rows."""
    longest_constant: int = 0
    """Longest stretch of stream time (microseconds) over which the training rows had one value, nulls aside; 0: not known.
    Rows are not independent: in a dry week it rains at no station."""


class ContentReference(msgspec.Struct, frozen=True, kw_only=True):
    """Texts or embeddings of a sample of the training's questions. The model does not read them; drift tells them from a
    window's."""

    name: str
    """A field of the asking event."""
    type: str
    """`text` or `embedding`."""
    missing: float
    """Share of nulls among the training rows."""
    texts: list[str] = []
    """As `contracts.content.cut` leaves them."""
    vectors: list[bytes] = []
    """float32, little-endian; base64 in JSON."""


class SliceReference(msgspec.Struct, frozen=True, kw_only=True):
    """How the model did on the holdout's rows of one value of one column."""

    column: str
    value: str
    rows: int
    loss: float
    loss_std: float
    """Standard deviation of one row's loss."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a group have in one column, as the graph sees it (numbers in float32)."""

    column: str
    """An input of the model; empty: its own answer."""
    above: float | None = None
    """Numbers: more than that."""
    upto: float | None = None
    """Numbers: not more than that."""
    categories: list[str] = []
    """Categories: one of these."""
    others: bool = False
    """Whether nulls belong too, and categories that no group names."""


class ErrorGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Questions for which a model was about as wrong on the holdout. A row is in the first group all of whose conditions hold;
    the last group takes the rest."""

    where: list[Condition]
    rows: int
    """Holdout rows that `loss` is of. Others, about as many, had a say in where the group begins and ends."""
    share: float
    """Of all rows of the holdout."""
    loss: float
    """Mean loss; by their shares the groups come to the holdout's."""
    loss_std: float
    """Standard deviation of one row's loss."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What drift compares with. Trainer computes it once; drift never recomputes it."""

    columns: list[ColumnReference]
    prediction: ColumnReference
    """The model's own output on the holdout: `probability`, `value`, or of a multiclass model `class`, the likeliest one."""
    holdout_loss: float
    """Mean loss on the holdout, as the task has it (`contracts.tasks`)."""
    holdout_loss_std: float
    """Standard deviation of one row's loss."""
    holdout_rows: int
    sample: dict[str, list[Scalar]]
    """A sample of training rows, column by column: Evidently draws its report against it."""
    slices: list[SliceReference] = []
    """Of the columns in `gate.slices`."""
    content: list[ContentReference] = []
    """Of the fields in `drift.text` and `drift.embedding`."""
    holdout_blind: float = 0.0
    """Loss on the holdout of who knows the shares of its labels (of numbers: their mean) and nothing else; 0: nobody said. One
    season is harder than another; beside this the losses of both compare."""
    error_groups: list[ErrorGroup] = []
    """Task regression: where the model is more wrong than elsewhere, for an estimate before the labels. Empty: nobody said."""


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """The model as its library keeps it, and what it takes to go on from it beside what the manifest says."""

    file: str
    """LightGBM's text, XGBoost's UBJSON or safetensors: formats that hold numbers and run nothing."""
    estimator: str
    """As the loop's file names it."""
    class_weight: str
    rounds: int
    """Trees or epochs so far."""
    until: datetime
    """When the newest row that it has learned was asked, the models before it included: nothing up to then may judge it."""
    columns: list[str]
    """Of the matrix that it is fitted on."""
    categories: dict[str, list[str]]
    """Per category column the values it knows; the place of one is its code."""
    one_hot: bool


class BadPackage(ValueError):
    """The package is not what its record promised; it is not served."""


def read_manifest(raw: bytes, sha256: str) -> Manifest:
    """Decode a manifest after checking its hash. Raises BadPackage."""
    actual = hashlib.sha256(raw).hexdigest()
    if actual != sha256:
        raise BadPackage(f"{MANIFEST_FILE} has sha256 {actual[:12]}…, its record says {sha256[:12]}…")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BadPackage(f"{MANIFEST_FILE} cannot be read: {error}") from error
    if manifest.format != 1:
        raise BadPackage(f"{MANIFEST_FILE} has format {manifest.format}; this release reads format 1")
    return manifest


def check_file(manifest: Manifest, name: str, raw: bytes) -> bytes:
    """`raw` itself when it is the file that the manifest names. Raises BadPackage."""
    promised = manifest.files.get(name)
    actual = hashlib.sha256(raw).hexdigest()
    if promised != actual:
        raise BadPackage(f"{name} has sha256 {actual[:12]}…, the manifest says {(promised or 'nothing')[:12]}…")
    return raw
