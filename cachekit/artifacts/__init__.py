"""Files and directories of any size, stored whole or not at all."""
