"""Jobs on a Flink cluster: submission, status and savepoints over the REST interface, for any Beam pipeline."""
