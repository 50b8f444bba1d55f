"""Incrementals and full snapshots: their contents, when they are due, their files, parts of the model."""
