"""orchestr8d: hand over a command or a coding agent in milliseconds; it runs in the background and reports back."""

__version__ = "0.1.0"
