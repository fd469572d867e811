"""Decoding of prompted detectors: token probabilities to class scores."""

from __future__ import annotations

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats, Ints


def class_scores(probabilities: Array, spans: Ints) -> Floats:
    """Mean probability of each class's tokens.

    Args:
        probabilities: (NQ, T) of query and token.
        spans: (n, 2) first token of each class and the one after its last, in rising order, none empty, the last
            end below T (the caption ends with [SEP]).

    Returns:
        (NQ, n). Equal rows give equal scores, whatever the number of queries: the sums are taken in one order.
    """
    sums = np.add.reduceat(np.asarray(probabilities, np.float64), spans.ravel(), axis=1)[:, ::2]
    return np.asarray(sums * (1.0 / (spans[:, 1] - spans[:, 0])), dtype=np.float64)
