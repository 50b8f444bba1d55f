"""The gate: whether what a shard learns is healthy, and what serving gets while it is not."""
