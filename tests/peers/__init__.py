"""The real servers that the inference adapters are tested against: provisioned once, started per test session."""
