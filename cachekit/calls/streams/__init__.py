"""Calls whose value comes in pieces: given on as they come, kept when the last one came."""
