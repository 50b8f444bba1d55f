"""springtide: keeps a recommendation model fresh. The packages are the floors, top to bottom, in README.md."""
