"""Inputs of the benchmarks: event streams, producers, observers."""
