"""Columns in memory: event blocks, keys, row selections, argument checks."""
