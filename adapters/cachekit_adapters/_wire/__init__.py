"""What is on the wire, whoever sends it: operations, batches, server-sent events, prices."""
