"""Serving: the reference consumer of deltas, and its predictions over HTTP."""
