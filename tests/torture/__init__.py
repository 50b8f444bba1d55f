"""A project on a real Kafka and Flink, everything of it killed in turn, and compared with one that nobody disturbed."""
