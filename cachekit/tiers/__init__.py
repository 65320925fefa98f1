"""The places of this machine: memory, disk, and what its processes tell each other."""
