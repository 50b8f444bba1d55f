"""Arrays, event blocks and keys: what columns look like in memory."""
