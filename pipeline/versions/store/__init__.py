"""Versions on disk: files, merges and retention beside the ledger."""
