"""Rollback of training and serving to before bad data: a pure plan, and the code that carries it out."""
