"""Files of events into the log."""
