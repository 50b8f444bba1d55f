"""Benchmarks of the stages of the pipeline and of the pipeline as a whole."""
