#!/usr/bin/env bash
# A Docker daemon and a registry of our own for tests: no iptables, no bridge, own folders and socket.
#   scripts/start_test_docker.sh [--install] DIR    start; writes DIR/env (export DOCKER_HOST, TAO_DEPLOY_TEST_REGISTRY)
#   scripts/start_test_docker.sh --stop DIR         stop both and remove DIR
# Needs root. --install fetches Debian's docker.io and docker-registry first. DIR on a disk with about 8 GB free.
set -euo pipefail
install=0 stop=0
while [ $# -gt 1 ]; do
  case "$1" in --install) install=1 ;; --stop) stop=1 ;; *) echo "unknown flag $1" >&2; exit 2 ;; esac
  shift
done
[ $# -eq 1 ] && [ "${1#-}" = "$1" ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
dir=$1

if [ $stop = 1 ]; then
  for file in "$dir/docker.pid" "$dir/registry.pid"; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || continue
    # A process that ended and was not collected by its parent counts as gone.
    for _ in $(seq 100); do grep -q '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" 2>/dev/null || break; sleep 0.1; done
  done
  # dockerd leaves its data folder mounted on itself with overlay2.
  umount "$dir/data" 2>/dev/null || true
  rm -rf "$dir"
  exit 0
fi

[ "$(id -u)" = 0 ] || { echo "dockerd cannot start here: not root" >&2; exit 1; }
if [ $install = 1 ]; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io docker-registry python3-venv libgomp1; } >/dev/null 2>"/tmp/start_test_docker.$$" \
    || { echo "docker.io cannot be installed here: $(tail -n 1 "/tmp/start_test_docker.$$")" >&2; exit 1; }
  rm -f "/tmp/start_test_docker.$$"
fi
for program in docker dockerd docker-registry; do
  command -v $program >/dev/null || { echo "dockerd cannot start here: $program is not installed" >&2; exit 1; }
done

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# Unix sockets have short names; a deep test folder would not fit.
socket=$(mktemp -u /tmp/tao_docker.XXXXXX)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$dir/registry.yml" <<EOF
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:$port"}
EOF
docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 </dev/null &
echo $! >"$dir/registry.pid"
# overlay2 is fast but not on every file system (not inside a container's own overlay); vfs works everywhere.
for storage in ${TAO_DEPLOY_TEST_STORAGE:-overlay2 vfs}; do
  setsid dockerd --data-root "$dir/data" --exec-root "$dir/exec" --host "unix://$socket" --pidfile "$dir/docker.pid" \
    --storage-driver="$storage" --iptables=false --ip6tables=false --bridge=none >"$dir/docker.log" 2>&1 </dev/null &
  daemon=$!
  for _ in $(seq 100); do
    if DOCKER_HOST=unix://$socket docker version >/dev/null 2>&1; then
      printf 'export DOCKER_HOST=unix://%s TAO_DEPLOY_TEST_REGISTRY=127.0.0.1:%s\n' "$socket" "$port" >"$dir/env"
      exit 0
    fi
    kill -0 $daemon 2>/dev/null || break
    sleep 0.2
  done
  kill $daemon 2>/dev/null && wait $daemon || true
done
echo "dockerd cannot start here: $(grep -m1 -E 'level=(error|fatal)|failed' "$dir/docker.log" || tail -n 1 "$dir/docker.log")" >&2
kill "$(cat "$dir/registry.pid")" 2>/dev/null
exit 1
