"""Kubo's RPC, and nothing else of Kubo."""
