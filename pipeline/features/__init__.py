"""From raw columns to keys, and from rows to pooled vectors, by the same code in training and serving."""
