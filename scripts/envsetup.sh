#!/usr/bin/env bash
# Source this file: sets NV_TAO_DEPLOY_TOP and defines the command tao_deploy of this checkout.
#   source scripts/envsetup.sh
if [ -n "${BASH_VERSION:-}" ]; then
  _tao_script=${BASH_SOURCE[0]}
  [ "$_tao_script" != "$0" ] || { echo "usage: source scripts/envsetup.sh" >&2; exit 1; }
elif [ -n "${ZSH_VERSION:-}" ]; then
  eval '_tao_script=${(%):-%x}'
else
  echo "envsetup.sh: error: bash or zsh is needed" >&2
  return 1 2>/dev/null || exit 1
fi

_tao_setup() {
  local top program docker_config
  top=$(CDPATH='' cd -- "$(dirname -- "$1")/.." && pwd) || return 1
  if ! command -v python3 >/dev/null 2>&1; then
    echo "envsetup.sh: error: python3 was not found; setup failed" >&2
    return 1
  fi
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "envsetup.sh: error: python3 is $(python3 -V 2>&1), 3.10 or newer is needed; setup failed" >&2
    return 1
  fi
  export NV_TAO_DEPLOY_TOP=$top

  # From here on only warnings: everything but tao_deploy works without containers.
  program=docker
  command -v docker >/dev/null 2>&1 || program=podman
  if ! command -v "$program" >/dev/null 2>&1; then
    echo "envsetup.sh: warning: neither docker nor podman was found; tao_deploy cannot start containers" >&2
  elif [ "$program" = docker ] && [ "$(uname -s)" != Darwin ] && [ "$(id -u)" != 0 ] && [ -z "${DOCKER_HOST:-}" ] \
    && [ ! -S "${XDG_RUNTIME_DIR:-/nonexistent}/docker.sock" ] && ! id -nG | tr ' ' '\n' | grep -qx docker; then
    echo "envsetup.sh: warning: you are not in the group docker: sudo usermod -aG docker $(id -un), then log in again" >&2
  fi
  docker_config=${DOCKER_CONFIG:-$HOME/.docker}/config.json
  # A credential store may hold the login without naming the registry in the file.
  if grep -q '"nvcr.io' "$top/docker/manifest.json" 2>/dev/null \
    && ! grep -qsE 'nvcr\.io|credsStore|credHelpers' "$docker_config"; then
    echo "envsetup.sh: warning: no login for nvcr.io in $docker_config: docker login nvcr.io" >&2
  fi
  case $- in *i*) echo "tao_deploy is ready: tao_deploy --help, tao_deploy doctor" ;; esac
  return 0
}

tao_deploy() {
  # The checkout's code first; the rest of the caller's path stays.
  PYTHONPATH="$NV_TAO_DEPLOY_TOP${PYTHONPATH:+:$PYTHONPATH}" python3 -m nvidia_tao_deploy.launcher.main "$@"
}

_tao_setup "$_tao_script"
_tao_status=$?
unset -f _tao_setup
unset _tao_script
if [ "$_tao_status" = 0 ] && [ -n "${BASH_VERSION:-}" ]; then export -f tao_deploy; fi
[ "$_tao_status" = 0 ] || unset -f tao_deploy
(exit "$_tao_status")
