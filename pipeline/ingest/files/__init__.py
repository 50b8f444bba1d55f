"""Files of events: readers of each format, and the conversion of raw columns to declared types."""
