"""Predictions: typed results per task, the writers that put them into files, and drawing.

A writer takes the results folder (``out_dir``) and, where its files mirror the dataset's folders, that one's ``root``.
"""
