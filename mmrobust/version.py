"""The version of mmrobust."""

__version__ = "0.2.0"
