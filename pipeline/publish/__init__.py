"""Publishing: which rows are sent to serving at which precision, the levels of deltas, hooks."""
