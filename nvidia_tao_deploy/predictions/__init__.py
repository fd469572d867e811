"""Predictions: typed results per task, the writers that put them into files, and drawing."""
