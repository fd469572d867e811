#!/usr/bin/env bash
# Build, run and measure the sample networks with the TensorRT of this machine, and write the table of
# docs/verification.md. Needs a GPU with its driver, Python >= 3.10, tensorrt, cuda-python and this package's
# dependencies; see docs/verification.md.
#   usage: scripts/verify_gpu.sh OUT_DIR [--networks NAME ...] [--precisions NAME ...] [--timeout SECONDS] [--replays]
set -euo pipefail
out=$(realpath -m "${1:?usage: scripts/verify_gpu.sh OUT_DIR [options]}"); shift
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" scripts/verify_gpu.py "$out" "$@"
