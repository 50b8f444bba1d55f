"""What the records of each topic hold: events, samples, dead letters."""
