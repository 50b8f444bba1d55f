"""Batches: read from the samples log, prepared ahead, scored before they are learned."""
