"""Ingest: files of events and dead letters into the log."""
