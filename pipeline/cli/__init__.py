"""The front door: commands, how they speak and what they exit with."""
