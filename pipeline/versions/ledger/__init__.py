"""The ledger: which versions exist and which one is CURRENT."""
