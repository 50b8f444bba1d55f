"""The formats of records: events, samples, dead letters, writer schemas."""
