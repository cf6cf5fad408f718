"""The feedback store: append-only events in SQLite, durable before the answer."""
