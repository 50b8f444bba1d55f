"""The demo: a simulated marketplace through the whole chain, with bad data, a rollback and a picture."""
