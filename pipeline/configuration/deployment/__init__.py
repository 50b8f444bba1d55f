"""Configuration of where jobs, logs, hooks and replicas run."""
