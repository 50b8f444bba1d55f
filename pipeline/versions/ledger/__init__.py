"""The ledger: one SQLite file that lists the versions of all shards and stores which one is CURRENT."""
