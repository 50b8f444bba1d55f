"""How much a row matters and how settled it is."""
