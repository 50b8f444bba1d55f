"""Back to before bad data: a pure plan, and the act that carries it out."""
