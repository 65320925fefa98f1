"""A private Kubo: installed, configured, started and ended."""
