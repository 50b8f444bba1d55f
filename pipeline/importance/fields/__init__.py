"""How much a field, a table or a dense input matters to the loss: live in the trainer, exactly on demand."""
