"""Real servers without installation: Kafka, Valkey and MLflow as child processes, for `millstream up` and for tests."""
