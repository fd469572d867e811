"""Exact k-NN retrieval against scikit-learn's brute force: time, memory, and whether both find the same images.

    PYTHONPATH=. python benchmarks/retrieval.py [--gallery 100000] [--queries 10000] [--width 256] [--k 10]

Every case runs in its own process. Memory is the process's peak, gallery, queries and imports included. The goal is
20 s and 1 GB. scikit-learn takes part on the first ``--compare`` queries.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

SECONDS, GIGABYTE = 20.0, 1e9


def main() -> int:
    """Run both and print a table; exit code 1 where the goal is missed or the neighbours differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--compare", type=int, default=500, help="queries that scikit-learn answers too")
    parser.add_argument("--case", choices=("ours", "sklearn"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options)))
        return 0
    ours, theirs = (measure(case) for case in ("ours", "sklearn"))
    print(f"{options.gallery} gallery vectors of {options.width} dimensions, k = {options.k}")
    print(f"{'':<14}{'queries':>9}{'seconds':>9}{'peak MB':>9}")
    for name, found in (("here", ours), ("scikit-learn", theirs)):
        print(f"{name:<14}{found['queries']:>9}{found['seconds']:>9.2f}{found['bytes'] / 1e6:>9.0f}")
    same = ours["first"] == theirs["first"]
    met = ours["seconds"] < SECONDS and ours["bytes"] < GIGABYTE
    print(f"same neighbours: {'yes' if same else 'NO'}; goal ({SECONDS:g} s, 1 GB): {'met' if met else 'MISSED'}")
    return 0 if same and met else 1


def measure(case: str) -> dict[str, float]:
    """Run one case in a process of its own."""
    done = subprocess.run([sys.executable, *sys.argv, "--case", case], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run_case(options: argparse.Namespace) -> dict[str, object]:
    """Random unit vectors; seconds of the search, the process's peak in bytes, and the first queries' neighbours."""
    from nvidia_tao_deploy.metrics.retrieval import nearest, normalize_rows

    random = np.random.default_rng(0)
    gallery, queries = (
        normalize_rows(random.standard_normal((count, options.width), dtype=np.float32))
        for count in (options.gallery, options.queries)
    )
    if options.case == "sklearn":
        from sklearn.neighbors import NearestNeighbors

        queries = queries[: options.compare]
        began = time.perf_counter()
        index = NearestNeighbors(n_neighbors=options.k, algorithm="brute").fit(gallery)
        found = index.kneighbors(queries, return_distance=False)
    else:
        began = time.perf_counter()
        found = nearest(gallery, queries, options.k)[0]
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "queries": len(queries),
        "seconds": seconds,
        "bytes": peak,
        "first": found[: options.compare].tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
