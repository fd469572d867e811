#!/usr/bin/env bash
# Release image. See --help.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

usage() {
  cat <<'EOF'
usage: release/docker/deploy.sh --build|--run [options]

  -b, --build          build the release image from the base image of docker/manifest.json and dist/*.whl
  -w, --wheel          with --build: make the wheel first (dist/ keeps no older wheel)
  -p, --push           with --build: push, print the digest
  -f, --force          with --build: without the cache
  -r, --run            a shell in the release image (with --build: after it)
      --default        the same as --run
      --base IMAGE     another base image
      --repository N   registry and name of the result (default: that of the manifest, with -release)
  -h, --help

The tag is v<version>-trt<TensorRT>-cuda<CUDA>-<build id>: the version by release/python/version.py, the others by the
base image's own environment, the build id by BUILD_ID (default 01). Parts that the base does not name are left out.
EOF
}
die() { echo "deploy.sh: error: $1" >&2; exit "${2:-2}"; }

build=0 wheel=0 push=0 force=0 run=0 base="" repository="" engine=${TAO_DEPLOY_ENGINE:-docker}
[ $# -gt 0 ] || { usage >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    -b|--build) build=1 ;;
    -w|--wheel) wheel=1 ;;
    -p|--push) push=1 ;;
    -f|--force) force=1 ;;
    -r|--run|--default) run=1 ;;
    --base|--repository) [ $# -ge 2 ] || die "$1 needs a value"; printf -v "${1#--}" '%s' "$2"; shift ;;
    -h|--help) usage; exit 0 ;;
    *) die "unknown flag $1 (see --help)" ;;
  esac
  shift
done
[ $build = 1 ] || [ $run = 1 ] || die "nothing to do: give --build or --run (see --help)"
[ $build = 1 ] || [ "$wheel$push$force" = 000 ] || die "--wheel, --push and --force go with --build"
command -v "$engine" >/dev/null || die "$engine: command not found" 127

manifest=$top/docker/manifest.json
names=$(PYTHONPATH=$top python3 - "$manifest" "$(uname -m)" <<'EOF'
import sys
from pathlib import Path
from nvidia_tao_deploy.errors import TaoDeployError
from nvidia_tao_deploy.launcher.image import wanted_reference
from nvidia_tao_deploy.launcher.manifest import read_manifest
try:
    manifest = read_manifest(Path(sys.argv[1]))
    print(manifest.name)
    print(wanted_reference(manifest, None, sys.argv[2]))
except TaoDeployError as error:
    print(f"deploy.sh: {error}", file=sys.stderr)
EOF
)
repository=${repository:-$(sed -n 1p <<<"$names")-release}
base=${base:-$(sed -n 2p <<<"$names")}
[ -n "$base" ] || die "no base image: give --base or build one first" 1

version=$(python3 "$top/release/python/version.py")
"$engine" image inspect "$base" >/dev/null 2>&1 || "$engine" pull "$base"
environment=$("$engine" image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$base")
setting() { sed -n "s/^$1=//p" <<<"$environment" | head -n 1; }
trt=$(setting TRT_VERSION) cuda=$(setting CUDA_VERSION)
image=$repository:v$version${trt:+-trt${trt%%+*}}${cuda:+-cuda$cuda}-${BUILD_ID:-01}

if [ $build = 1 ]; then
  if [ $wheel = 1 ]; then
    rm -f "$top"/dist/nvidia_tao_deploy-*.whl
    "$top/release/python/build_wheel.sh" "$top/dist" || die "the wheel does not build" 1
  fi
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  mkdir "$context/wheels"
  shopt -s nullglob
  wheels=("$top"/dist/nvidia_tao_deploy-"$version"-py3-none-any.whl)
  shopt -u nullglob
  [ ${#wheels[@]} = 1 ] || die "no wheel of $version in dist/: give --wheel" 1
  cp "${wheels[0]}" "$context/wheels/"
  cp "$top/LICENSE" "$context/LICENSE"
  arguments=(--file "$top/release/docker/Dockerfile.release" --build-arg "BASE_IMAGE=$base" --build-arg "VERSION=$version")
  [ $force = 0 ] || arguments+=(--no-cache)
  [ -z "${TAO_DEPLOY_BUILD_NETWORK:-}" ] || arguments+=(--network "$TAO_DEPLOY_BUILD_NETWORK")
  "$engine" build "${arguments[@]}" --tag "$image" "$context"
  echo "image: $image"
  if [ $push = 1 ]; then
    "$engine" push "$image"
    "$engine" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" | grep -F "$repository@" | sed 's/.*@/digest: /'
  fi
fi
if [ $run = 1 ]; then
  exec "$engine" run --rm --interactive --tty --user "$(id -u):$(id -g)" --env HOME=/tmp "$image"
fi
