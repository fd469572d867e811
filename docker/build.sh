#!/usr/bin/env bash
# Build, push and record the images of docker/. See --help.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'EOF'
usage: docker/build.sh --build [options]

  -b, --build            build the image (nothing happens without it)
  -p, --push             tag with the date, push, print the digest
      --write            after --push: write the digest into the manifest
  -f, --force            build without the cache
      --default          the same as --build
which image
      --x86, --arm       linux/amd64 or linux/arm64, docker/Dockerfile (default: this machine's)
      --multiplatform    both, as one index; needs --push and docker buildx
      --l4t              linux/arm64, docker/Dockerfile.l4t, repository with -l4t, docker/manifest-l4t.json
      --cpu              docker/Dockerfile.cpu: ONNX Runtime only
      --platform P       another platform, e.g. linux/arm64
      --base IMAGE       base image instead of the Dockerfile's
what goes in
      --wheel FILE       wheel of this package (default: built from this checkout)
      --wheelhouse DIR   take all dependencies from here and none from a package index
where it goes
      --registry R, --repository N, --manifest FILE   (default: docker/manifest.json)
      --engine E         docker (default) or podman
      --network N        network of the build's commands
  -h, --help
EOF
}
die() { echo "build.sh: error: $1" >&2; exit "${2:-2}"; }

build=0 push=0 write=0 force=0 multi=0 kind=gpu
platform="" base="" wheel="" wheelhouse="" registry="" repository="" manifest="" engine=docker network=""
[ $# -gt 0 ] || { usage >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --platform|--base|--wheel|--wheelhouse|--registry|--repository|--manifest|--engine|--network)
      [ $# -ge 2 ] || die "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"; shift ;;
    -b|--build|--default) build=1 ;;
    -p|--push) push=1 ;;
    --write) write=1 ;;
    -f|--force) force=1 ;;
    --x86) platform=linux/amd64 ;;
    --arm) platform=linux/arm64 ;;
    --multiplatform) multi=1 ;;
    --l4t) kind=l4t; platform=${platform:-linux/arm64} ;;
    --cpu) kind=cpu ;;
    -h|--help) usage; exit 0 ;;
    *) die "unknown flag $1 (see --help)" ;;
  esac
  shift
done
[ $build = 1 ] || die "nothing to do: give --build (see --help)"
[ $multi = 0 ] || [ $push = 1 ] || die "--multiplatform needs --push: an index exists only in a registry"
[ $multi = 0 ] || [ "$engine" = docker ] || die "--multiplatform needs docker buildx"
[ $write = 0 ] || [ $push = 1 ] || die "--write needs --push: the digest comes from the registry"
case "$engine" in docker|podman) ;; *) die "--engine is docker or podman" ;; esac
host=$(uname -m); case "$host" in x86_64|amd64) host=linux/amd64 ;; aarch64|arm64) host=linux/arm64 ;; esac
platform=${platform:-$host}
case "$platform" in linux/amd64) arch=x86 ;; linux/arm64) arch=arm ;; *) die "platform $platform is not linux/amd64 or linux/arm64" ;; esac
if [ $kind = l4t ] && { [ $platform != linux/arm64 ] || [ $multi = 1 ]; }; then die "--l4t is linux/arm64 only"; fi
command -v "$engine" >/dev/null || die "$engine: command not found" 127

default_manifest=$top/docker/manifest.json; suffix=""
[ $kind != l4t ] || { default_manifest=$top/docker/manifest-l4t.json; suffix=-l4t; }
manifest=${manifest:-$default_manifest}
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$top/docker/manifest.json" "$1"; }
[ -n "$registry" ] || registry=$(field registry)
[ -n "$repository" ] || repository=$(field repository)$suffix
name=$registry/$repository

case $kind in
  gpu) dockerfile=Dockerfile requirements=requirements.txt ;;
  l4t) dockerfile=Dockerfile.l4t requirements=requirements-l4t.txt ;;
  cpu) dockerfile=Dockerfile.cpu requirements=requirements-cpu.txt ;;
esac

# The context holds what the image needs and nothing else of the checkout.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/wheels"
if [ -n "$wheelhouse" ]; then
  cp "$wheelhouse"/*.whl "$context/wheels/" || die "no wheels in $wheelhouse"
fi
if [ -n "$wheel" ]; then
  cp "$wheel" "$context/wheels/"
else
  slim=(); [ $kind != l4t ] || slim=(--l4t)
  "$top/release/python/build_wheel.sh" "${slim[@]}" "$context/wheels" || die "the wheel does not build" 1
fi
cp "$top/docker/$requirements" "$context/requirements.txt"
cp "$top/docker/$dockerfile" "$context/Dockerfile"
cp "$top/LICENSE" "$context/LICENSE"
# A GPU base brings its own Python and versions; only the CPU image is ours from the ground up.
if [ $kind = cpu ]; then cp "$top/requirements/pinned.txt" "$context/constraints.txt"; else : >"$context/constraints.txt"; fi

user=$(printf %s "${USER:-$(id -un)}" | tr -c 'A-Za-z0-9_.-' _)
local_tag=$user; [ $kind = gpu ] || local_tag=$user-$kind
dated_tag=$local_tag-$(date +%Y%m%d%H%M)
arguments=(--file "$context/Dockerfile")
[ -z "$base" ] || arguments+=(--build-arg "BASE_IMAGE=$base")
[ -z "$wheelhouse" ] || arguments+=(--build-arg PIP_OPTIONS=--no-index)
[ $force = 0 ] || arguments+=(--no-cache)
[ -z "$network" ] || arguments+=(--network "$network")

digest_of_push() {
  "$engine" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$name:$dated_tag" | grep -F "$name@" | tail -n 1 | sed 's/.*@//'
}

if [ $multi = 1 ]; then
  docker buildx inspect tao-multiplatform-builder >/dev/null 2>&1 \
    || docker buildx create --name tao-multiplatform-builder --driver docker-container >/dev/null
  docker buildx build --builder tao-multiplatform-builder --platform linux/amd64,linux/arm64 "${arguments[@]}" \
    --tag "$name:$local_tag" --tag "$name:$dated_tag" --push --metadata-file "$context/metadata.json" "$context"
  digest=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$context/metadata.json")
  arch=x86,arm
else
  if [ "$platform" != "$host" ] && ! ls /proc/sys/fs/binfmt_misc/qemu-* >/dev/null 2>&1; then
    die "no emulation for $platform on this machine: install qemu-user-static, or build on a machine of that kind" 1
  fi
  [ "$platform" = "$host" ] || arguments+=(--platform "$platform")
  "$engine" build "${arguments[@]}" --tag "$name:$local_tag" "$context"
  digest=""
  if [ $push = 1 ]; then
    "$engine" tag "$name:$local_tag" "$name:$dated_tag"
    "$engine" push "$name:$dated_tag"
    digest=$(digest_of_push)
    [ -n "$digest" ] || die "the registry gave no digest for $name:$dated_tag" 1
  fi
fi

echo "image: $name:$local_tag"
if [ -n "$digest" ]; then
  echo "pushed: $name:$dated_tag"
  echo "digest for $arch: $digest"
fi
if [ $write = 1 ]; then
  PYTHONPATH=$top python3 -m nvidia_tao_deploy.launcher.manifest "$manifest" "$arch" "$digest" "$name"
  echo "written: $manifest"
fi
