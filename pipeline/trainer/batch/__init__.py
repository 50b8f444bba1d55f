"""Batches: cut from the samples log, prepared ahead, scored before they are learned."""
