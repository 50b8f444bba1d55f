"""Sorted runs: what a version changes in a table, by key, in blocks; and how runs are merged."""
