"""Small real data sets and networks that this repository makes itself: ``samples.data`` and ``samples.train``."""
