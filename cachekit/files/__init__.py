"""Files that processes share: locks, SQLite, digests, copies and the places where they stand."""
