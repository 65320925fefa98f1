"""One cache directory and all that belongs to it; the default one."""
