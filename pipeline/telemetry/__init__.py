"""Metrics: every metric is declared here and exported to Prometheus from here."""
