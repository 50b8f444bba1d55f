"""Telemetry: metrics, and their export to Prometheus."""
