"""Ranges from histograms of magnitudes: the three histogram methods as pure functions.

A histogram has ``bins`` equal bins over [0, limit]; all functions return amax, the magnitude at which values are
clipped. There are more than LEVELS bins, and they are not all empty.
"""

from __future__ import annotations

import numpy as np

from nvidia_tao_deploy.arrays import Floats, Ints

LEVELS = 128  # magnitudes an int8 tensor can hold: 0 ... 127
STEPS = 256  # clipping magnitudes that mse_amax compares
MOST_CLIPPED = 0.01  # share of the values that entropy_amax may clip


def entropy_amax(counts: Ints, limit: float) -> float:
    """Clip where the quantized distribution tells most about the original (Kullback-Leibler divergence).

    For every candidate i in LEVELS..bins the first i bins are the reference P, with everything beyond added to its
    last bin; Q spreads each of LEVELS equal groups of bins evenly over the group's non-empty bins; the i with
    the smallest KL(P || Q) wins (S. Migacz, "8-bit Inference with TensorRT", GTC 2017). The zero bin, which holds
    the zeros of every ReLU, takes the count of its neighbour, as NVIDIA's quantization toolkit does.

    Candidates that clip more than ``MOST_CLIPPED`` are passed over. Smooth distributions, heavy tails too, end far
    below that; but few distinct values, such as the grey levels of a network's input, make a comb of the histogram,
    which a small i copies exactly while KL charges little for a great mass in the last bin.

    All candidates are evaluated at once from cumulative sums: O(bins * LEVELS) time and memory.
    """
    bins = len(counts)
    hist = counts.astype(np.float64)
    if hist[1:].sum() == 0:
        return limit
    hist[0] = hist[1]
    total = hist.sum()
    sums = np.concatenate([[0.0], np.cumsum(hist)])
    filled = np.concatenate([[0.0], np.cumsum(hist > 0)])
    # sum of p log p over the first i bins
    self_terms = np.concatenate([[0.0], np.cumsum(_x_log_x(hist))])

    candidates = np.arange(LEVELS, bins + 1)
    # Bin j belongs to group j * LEVELS // i, so group k starts at ceil(k * i / LEVELS).
    edges = -(-np.arange(LEVELS + 1)[None, :] * candidates[:, None] // LEVELS)
    mass_q = np.diff(sums[edges], axis=1)
    width = np.diff(filled[edges], axis=1)

    outliers = total - sums[candidates]
    last = hist[candidates - 1]
    mass_p = mass_q.copy()
    mass_p[:, -1] += outliers
    p_log_p = self_terms[candidates] - _x_log_x(last) + _x_log_x(last + outliers)
    # Outliers in an otherwise empty last bin meet q = 0: the divergence is infinite there.
    impossible = (last == 0) & (outliers > 0)

    kept = sums[candidates]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.where(width > 0, np.log(mass_q / width), 0.0)
    cross = (mass_p * log_q).sum(axis=1)
    # KL = sum P/T log(P/T) - P/T log(Q/K), with T the whole mass and K the mass inside the candidate
    divergence = np.full(len(candidates), np.inf)
    valid = ~impossible & (kept > 0) & (outliers <= MOST_CLIPPED * total)
    divergence[valid] = (p_log_p[valid] - cross[valid]) / total - np.log(total) + np.log(kept[valid])
    best = int(candidates[int(np.argmin(divergence))])
    return best * limit / bins


def percentile_amax(counts: Ints, limit: float, percentile: float) -> float:
    """The magnitude below which ``percentile`` percent of all values lie, linear within the bin."""
    cumulative = np.cumsum(counts)
    target = percentile / 100.0 * counts.sum()
    i = min(int(np.searchsorted(cumulative, target)), len(counts) - 1)
    inside = (target - float(cumulative[i] - counts[i])) / counts[i]
    return float((i + inside) * limit / len(counts))


def mse_amax(counts: Ints, limit: float) -> float:
    """The clipping magnitude with the smallest mean squared error of rounding to LEVELS - 1 steps.

    STEPS candidates are spread evenly over (0, limit]; values sit at their bins' centres.
    """
    bins = len(counts)
    occupied = np.flatnonzero(counts)
    values = (occupied + 0.5) * (limit / bins)
    weights = counts[occupied].astype(np.float64)
    amax = limit * np.arange(1, STEPS + 1) / STEPS
    step = amax / (LEVELS - 1)
    rounded = np.minimum(np.rint(values[None, :] / step[:, None]), LEVELS - 1) * step[:, None]
    errors = ((values[None, :] - rounded) ** 2 @ weights).astype(np.float64)
    return float(amax[int(np.argmin(errors))])


def _x_log_x(x: Floats) -> Floats:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)
