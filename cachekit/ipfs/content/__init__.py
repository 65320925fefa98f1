"""Bytes by CID: computed here, sent, fetched and verified."""
