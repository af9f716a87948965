"""What every service runs on: settings, delivery from Kafka, publishing to it, health, metrics, traces, logs."""
