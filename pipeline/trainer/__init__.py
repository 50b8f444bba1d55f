"""Learns from the samples log and commits versions; the Beam job only drives it."""
