"""Beam sources that read a log, and what keeps a live Beam job going."""
