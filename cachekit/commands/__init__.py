"""Commands whose outcome is kept: what a program printed, the files it made, and how it ended."""
