"""Commands about what goes into the logs: input events, dead letters, topics."""
