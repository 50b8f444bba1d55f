"""How much a row matters to the loss, and how far it has converged."""
