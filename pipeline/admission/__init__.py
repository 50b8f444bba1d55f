"""Which keys earn a row, and which rows go again."""
