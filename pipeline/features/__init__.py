"""Raw columns to keys, by the same code in training and serving."""
