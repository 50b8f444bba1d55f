"""Publishing: which rows are sent to serving at which precision, the three levels of deltas, hooks."""
