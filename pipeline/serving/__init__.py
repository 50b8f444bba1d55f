"""Serving: a reference consumer of deltas, and the HTTP face of its predictions."""
