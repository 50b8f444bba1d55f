"""The samples job: what drives the join, in process and on Flink."""
