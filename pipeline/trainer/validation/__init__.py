"""Progressive validation: what the metrics of a label are, computed from samples before they are learned."""
