"""Benchmarks on a real Kafka and a real Flink: `make bench-live`."""
