"""Versions of the model: their files, the ledger that lists them, and the deltas made from them for serving."""
