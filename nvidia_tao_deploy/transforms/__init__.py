"""Transforms: from a sample to the arrays a network takes in."""
