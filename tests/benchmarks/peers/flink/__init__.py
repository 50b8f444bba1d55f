"""Flink SQL as a peer: its interval join in one process, on a cluster with Kafka, and after kills."""
