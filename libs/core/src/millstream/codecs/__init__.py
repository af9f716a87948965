"""How a user's event lies in Kafka: bytes to the event as JSON would have carried it, and back."""
