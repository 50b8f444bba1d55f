"""Benchmarks of what models learn: quality beside its cost."""
