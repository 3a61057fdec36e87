"""The cheap half of an evaluation: predictions joined with missing tables, metrics, statistics. Never imports torch."""
