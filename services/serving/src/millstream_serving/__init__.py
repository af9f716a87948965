"""serving answers: a question comes over Kafka or HTTP, the loop's champion answers it, and the answer is on record."""
