"""A directory as the engine: on a mounted disk, or behind any static web server."""
