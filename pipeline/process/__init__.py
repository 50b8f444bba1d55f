"""The process: its clock, its name, and its crash points for tests."""
