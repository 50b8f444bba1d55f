"""The items that a label with two towers chooses from: how frequent they are, and recent ones to draw from."""
