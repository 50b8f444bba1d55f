"""Benchmarks of native components, each with a separate peer in the same process."""
