"""From samples to losses: targets, losses of labels, corrections for late events."""
