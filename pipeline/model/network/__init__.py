"""The user's network: building it, its inputs, its weights."""
