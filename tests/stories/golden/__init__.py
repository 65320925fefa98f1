"""What earlier versions wrote, kept as they wrote it: `vN.json` is never changed, a new format gets a file of its own."""
