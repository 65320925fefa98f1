"""Which call is this? A function and its arguments become a key that every machine agrees on."""
