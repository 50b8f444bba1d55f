"""Learns from the samples log and commits versions; `run` drives it in process or on Flink."""
