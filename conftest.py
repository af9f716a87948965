"""Fixtures for every test of the repository: real Kafka, Valkey and MLflow, started when first asked for."""

import prometheus_client  # noqa: F401  (before Feast, whose import makes it keep values in files that all registries share)
from hypothesis import HealthCheck, settings

pytest_plugins = ["millstream.testing.fixtures"]

# By the clock Hypothesis would call an example of 200 ms a failure, and ten that took a second to draw: a machine that stands
# still for a moment is neither. What hangs ends with its test.
settings.register_profile("mill", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mill")
