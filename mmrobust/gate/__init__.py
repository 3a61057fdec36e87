"""Comparison of two results, and the regression gate for CI. Never imports torch."""
