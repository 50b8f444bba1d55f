"""What a shard has read of its inputs and what it has emitted: where a restart of the join continues."""
