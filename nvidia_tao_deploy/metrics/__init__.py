"""Metrics: pure functions, and thin update/compute classes over them."""
