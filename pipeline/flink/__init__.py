"""Jobs on a Flink cluster: submitted, looked at and stopped over its REST interface; knows nothing of what they do."""
