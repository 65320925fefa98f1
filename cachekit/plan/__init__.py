"""What happens to a call, decided without I/O, and who performs it."""
