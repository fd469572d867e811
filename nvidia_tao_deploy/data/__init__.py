"""Datasets: from files on disk to samples."""
