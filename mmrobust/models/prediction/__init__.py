"""Predictions of a classifier, which share all computations that they have in common."""
