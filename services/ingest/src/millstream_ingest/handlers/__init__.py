"""What ingest does: checks events against their stream and puts the good ones into the log, once."""

from millstream_ingest.handlers.accept import Acceptor
from millstream_ingest.handlers.admission import Admission, Admits, Admitted, Arrival
from millstream_ingest.handlers.labels import Labeller
from millstream_ingest.handlers.lag import LagWatch
from millstream_ingest.handlers.once import Once
from millstream_ingest.handlers.porter import Permit, Porter
from millstream_ingest.handlers.quotas import Quotas

__all__ = [
    "Acceptor",
    "Admission",
    "Admits",
    "Admitted",
    "Arrival",
    "Labeller",
    "LagWatch",
    "Once",
    "Permit",
    "Porter",
    "Quotas",
]
