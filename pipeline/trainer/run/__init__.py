"""The train job: what drives the trainer shards, in process and on Flink."""
