"""What the front of a replica and the process that predicts exchange."""
