"""features remembers: the project's streams become tiles (online) and lake rows (offline), read through Feast."""
