"""What the local cluster needs of Java: its programs, the jars of Kafka and Flink, and their logging."""
