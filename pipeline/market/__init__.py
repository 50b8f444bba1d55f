"""A simulated marketplace with known truth."""
