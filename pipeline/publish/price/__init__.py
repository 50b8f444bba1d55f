"""What is sent to serving and how finely: the price of a byte, and rows and dense weights under it."""
