"""Beam sources that read a log, and helpers for streaming jobs."""
