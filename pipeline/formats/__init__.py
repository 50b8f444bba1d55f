"""Storage formats: atomic files, the container format, Avro schemas, packed columns, checksums."""
