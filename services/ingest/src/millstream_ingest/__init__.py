"""ingest accepts: events over HTTP, checked against their stream's schema, into Kafka."""
