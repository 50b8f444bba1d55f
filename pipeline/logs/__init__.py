"""The log: its interface, its engines, and the formats of its records."""
