"""The places where a record can be. A tier knows nothing of its neighbours."""
