"""Recall: from all items the few worth ranking for a user."""
