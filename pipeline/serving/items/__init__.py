"""The items of a model with two towers, embedded by the served version, and found for a user."""
