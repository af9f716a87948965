"""What ingest does: checks events against their stream and puts the good ones into the log, once."""

from millstream_ingest.handlers.accept import Acceptor
from millstream_ingest.handlers.admission import Admission, Admits, Arrival
from millstream_ingest.handlers.labels import Labeller
from millstream_ingest.handlers.once import Once

__all__ = ["Acceptor", "Admission", "Admits", "Arrival", "Labeller", "Once"]
