"""Fixtures for every test of the repository: real Kafka, Valkey and MLflow, started when first asked for."""

pytest_plugins = ["millstream.testing.fixtures"]
