"""Versions of the model as a chain: files, ledger, delta codec, quantiser."""
