"""What all commands share: options, output and lookups."""
