"""Imported once by the fork server, so that a training process starts with its libraries there and is mostly its fit.

Forking is safe only while no library has started threads whose work the child would miss. A test names the threads that
these imports leave: jemalloc's, which handle forks themselves, and Polars' cleaner of spilled files (nothing spills
here); the pools of Polars, Arrow and OpenMP start with their first work, which is in the child. Left out is onnxruntime:
it starts a thread when imported, and a child imports it in a tenth of a second. OpenBLAS is held to one thread, since it
starts its pool at import. All of it is about 400 MB once, shared with the children.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Threads that wait sleep instead of spinning. On two cores that others use too, a spinning fit of 100,000 rows took 8 s
# and a sleeping one 1.1 s; on idle cores both take the same.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("FEAST_USAGE", "False")

import lightgbm  # noqa: F401
import mlflow.tracking  # noqa: F401
import onnx  # noqa: F401
import onnxmltools  # noqa: F401
import skl2onnx  # noqa: F401

import millstream.project
import millstream.runtime.packages  # noqa: F401
import millstream_tiles.offline_store
import millstream_tiles.online_store
import millstream_tiles.registry  # noqa: F401
