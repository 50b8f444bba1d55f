"""Bytes at rest: atomic files, the container format, Avro schemas, checksums."""
