"""Kills every process of a project on a real Kafka and Flink and compares the result with an undisturbed run."""
