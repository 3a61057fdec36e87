"""Whether the numbers of a checkpoint can be trusted, and what works on this machine."""
