"""A real Kafka broker and a real Flink cluster on this machine, for development, tests and torture.

Processes on the loopback address, from jars that `pom.xml` names, everything in one folder. No containers, no root.
"""
