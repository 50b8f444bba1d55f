"""springtide: keeps a recommendation model fresh. The packages and their order: ARCHITECTURE.md."""
