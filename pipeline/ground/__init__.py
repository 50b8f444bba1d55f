"""What every floor stands on: configuration, blocks, keys, clock, errors."""
