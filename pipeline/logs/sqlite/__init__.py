"""The embedded engine of the log: one SQLite file per partition."""
