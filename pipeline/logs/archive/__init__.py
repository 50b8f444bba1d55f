"""The archive engine: a read-only log of Avro container files, for backfill."""
