"""The commands by subject, one file per group."""
