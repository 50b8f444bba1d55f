"""Samples: impressions and clicks joined into labelled samples; `join` is pure, `job` runs it through Beam."""
