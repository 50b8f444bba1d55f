"""How precision was chosen at a version, and what other prices of a byte would give."""
