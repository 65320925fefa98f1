"""What code a function is, and all own code and data that it reaches."""
