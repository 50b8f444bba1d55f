"""Runs and reports benchmarks: processes, peers, figures."""
