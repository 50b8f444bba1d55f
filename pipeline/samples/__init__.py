"""Samples: impressions and feedback joined into labelled samples; `join` is pure, `state` stores, `run` drives it."""
