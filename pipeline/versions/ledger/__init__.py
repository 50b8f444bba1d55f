"""The ledger: a topic of the log that lists the versions of all shards and holds which one is CURRENT."""
