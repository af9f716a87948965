"""Imported once by the fork server, so that a training process starts with its libraries there and is mostly its fit.

Forking is safe only while no library has started threads that the child would miss. Checked by a test: importing these
starts none but jemalloc's (which handles forks itself). Left out for that reason: onnxruntime and polars, which start
threads when imported; a child imports them in under a second. OpenBLAS is held to one thread, since it starts its pool
at import.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("FEAST_USAGE", "False")

import deltalake  # noqa: F401
import feast
import feast.infra.offline_stores.offline_store  # noqa: F401
import lightgbm  # noqa: F401
import onnx  # noqa: F401
import onnxmltools  # noqa: F401
import pandas  # noqa: F401
import sklearn.metrics  # noqa: F401
