"""Commits: from a shard in memory to a version on disk, and back."""
