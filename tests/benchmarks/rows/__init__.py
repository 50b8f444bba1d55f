"""Benchmarks of rows: in memory, in versions, on disk, and as they are published."""
