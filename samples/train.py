"""Trains the sample networks: ``python -m samples.train [network ...]`` (all by default, minutes each on two cores).

Needs ``torch==2.13.0`` and onnxruntime beside what ``samples.data`` needs.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

from samples.networks import SAMPLE_NETWORKS

NETWORKS = tuple(dict.fromkeys(row.trainer or name for name, row in SAMPLE_NETWORKS.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the sample networks and export them to ONNX.")
    parser.add_argument("networks", nargs="*", metavar="network", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models")
    arguments = parser.parse_args()
    unknown = set(arguments.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"unknown network {', '.join(sorted(unknown))}; choose from {', '.join(NETWORKS)}")
    for name in arguments.networks or NETWORKS:
        print(name, flush=True)
        started = time.monotonic()
        import_module(f"samples.trainers.{name}").train(arguments.out)
        print(f"  {time.monotonic() - started:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
