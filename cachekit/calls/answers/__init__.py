"""Calls of a model's server: answers kept as they were on the wire."""
