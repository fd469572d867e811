#!/usr/bin/env bash
# release/python/build_wheel.sh [--l4t] OUT_DIR [pip or setup options]: build the wheel from a clean copy of the sources.
# In the checkout itself, an old build/ folder would slip modules that are gone into the wheel.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
l4t=0
[ "${1:-}" != --l4t ] || { l4t=1; shift; }
[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/docker" "$copy/release"
(cd "$top" && tar -c --exclude='__pycache__' nvidia_tao_deploy setup.py pyproject.toml README.md LICENSE \
  docker/manifest.json docker/requirements-l4t.txt release/setup_l4t.py release/python requirements) | tar -x -C "$copy"
cd "$copy"
if [ $l4t = 1 ]; then
  python3 -W ignore release/setup_l4t.py --quiet bdist_wheel --dist-dir "$out" "$@"
else
  python3 -m pip wheel --quiet --no-deps --wheel-dir "$out" "$@" .
fi
