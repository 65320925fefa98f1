"""One cache directory and all that belongs to it: open tiers, counters, threads; and which one is the default."""
