"""Fixtures for every test of the repository: real Kafka, Valkey and MLflow, started when first asked for."""

import prometheus_client  # noqa: F401  (before Feast, whose import makes it keep values in files that all registries share)

pytest_plugins = ["millstream.testing.fixtures"]
