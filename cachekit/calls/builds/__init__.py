"""Calls that build a file or a directory."""
