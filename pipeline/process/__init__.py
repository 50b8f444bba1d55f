"""What a process takes from its surroundings: clock, name, crash points."""
