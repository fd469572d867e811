"""The one place that holds the package version (read by setup.py and the release scripts)."""

__version__ = "0.1.0"
