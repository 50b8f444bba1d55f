"""A real Kafka broker and a real Flink cluster on this machine, for development and tests.

Processes on the loopback address with the jars listed in `pom.xml`, all files in one folder; no containers, no root.
"""
