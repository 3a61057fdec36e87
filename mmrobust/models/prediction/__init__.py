"""Predictions of a classifier: everything that several of them have in common is computed once."""
