"""Configuration: `springtide.toml`, typed and frozen, and the project folder it describes."""
