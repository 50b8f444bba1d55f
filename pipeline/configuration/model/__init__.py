"""Configuration of the model: fields and their tables, labels, optimizers, training."""
