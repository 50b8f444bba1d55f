"""Surgical quarantines: conditions over the raw columns of samples, sets of keys, and what they touch in the model."""
