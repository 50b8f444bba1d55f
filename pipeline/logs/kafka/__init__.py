"""The Kafka engine of the log."""
