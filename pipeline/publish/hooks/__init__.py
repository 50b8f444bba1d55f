"""Hooks: notices of published versions and rollbacks, and their delivery to a webhook and an executable."""
