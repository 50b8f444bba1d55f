"""The items that a label with two towers tells apart: how frequent they are, and recent ones to draw from."""
