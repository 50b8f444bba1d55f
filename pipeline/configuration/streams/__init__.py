"""Configuration of topics and what their events hold."""
