"""Checkpoints of the papers' own code, made into ours. One module per method, each a pure function of a state dict."""
