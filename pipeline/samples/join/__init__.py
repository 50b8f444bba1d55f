"""The join as a state machine over blocks: pure, without Beam and without a log."""
