"""Checkpoints of the papers' released code, made into ours: one module per repository, each a pure function."""
