"""Which keys are admitted, and which rows expire."""
