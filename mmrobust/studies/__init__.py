"""Studies: whole tables by one command: what is trained and evaluated, in which order, and what comes of it."""
