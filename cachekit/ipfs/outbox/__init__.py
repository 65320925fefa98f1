"""What is still to be sent to the daemon, durably, and how it goes there."""
