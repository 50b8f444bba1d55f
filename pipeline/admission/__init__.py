"""Which keys earn a row, and which rows are removed again."""
