"""Every reader of bytes that come from outside of the process, in one table: with seeds of valid input, and what it may raise."""
