"""Configuration: `springtide.toml` as typed, frozen objects; the project folder; the environment."""
