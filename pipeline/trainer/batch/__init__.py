"""Batches: read from the samples log, and prepared ahead of the one that is learned."""
