"""Comparisons of two results, and the gate that CI relies on. Never imports torch."""
