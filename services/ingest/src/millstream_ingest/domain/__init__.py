"""What an accepted event is, and how request bodies become events."""
