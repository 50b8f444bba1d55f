"""Samples: impressions and clicks joined into labelled samples; `join` is pure, `state` stores it, `run` drives it."""
