"""The model: backbone + method + head, as a classifier and as a checkpoint."""
