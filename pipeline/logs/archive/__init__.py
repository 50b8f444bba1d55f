"""The read-only archive of Avro container files, for backfill."""
