"""Deltas for serving: codec, quantizer, served view, published files."""
