"""Decorated functions, and their calls from arguments to value."""
