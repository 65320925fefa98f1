"""The daemons of a team: who they are, what each published last, and how the others hear of it."""
