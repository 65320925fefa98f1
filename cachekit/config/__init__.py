"""Which setting holds, and who said so."""
