"""The version of mmrobust."""

__version__ = "0.1.0"
