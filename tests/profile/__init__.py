"""Flame graphs of the processes that work: trainer, join and replica."""
