"""The demo: a simulated marketplace through the complete pipeline, with bad data, a rollback and a picture."""
