"""A value to bytes and back, with no code in the data."""
