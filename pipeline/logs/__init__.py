"""Logs: the interface, its engines, and what their records hold."""
