"""Commands about the model: its versions, rows, items and quarantines."""
