#!/usr/bin/env bash
# Installs what the Makefile asks for, one step an argument:
#   package        .venv with fal-gateway, all that running needs
#   package-test   the same, with the test tools
#   node           the real clients that the tests drive, as their lock file pins them
#   system         Debian packages that the tests start: installed where that is possible, else named
# Each step leaves a stamp file, so that make calls it again only when its inputs have changed.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
CLIENTS=tests/clients
# command that must be there : Debian package that brings it
SYSTEM_NEEDS=("chromium:chromium" "curl:curl")

fail() {
  printf 'set-up: %s\n' "$*" >&2
  exit 1
}

may_install() {
  command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# Installs Debian packages. The lists are fetched first: on a fresh machine they are absent or old.
apt_install() {
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  printf 'set-up: installing %s\n' "$*" >&2
  "${as_root[@]}" apt-get update -qq >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >/dev/null
}

# Prints the first Python that is 3.11 or newer and can make a virtual environment.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$name"
      return 0
    fi
  done
  return 1
}

make_venv() {
  [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c 'import pip' 2>/dev/null && return 0
  local python
  if ! python=$(find_python); then
    may_install || fail "needs Python 3.11 or newer with its venv module (Debian: python3, python3-venv)"
    apt_install python3 python3-venv
    python=$(find_python) || fail "this system's python3 is older than 3.11"
  fi
  "$python" -m venv --clear "$VENV"
}

pip_install() {
  make_venv
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore \
    --constraint tools/constraints.txt --editable "$1" >&2
}

install_node_packages() {
  command -v npm >/dev/null || fail "needs Node 20 or newer with npm, for the real client in the tests"
  # --ignore-scripts: nothing that is installed here needs to run code at installation.
  npm ci --prefix "$CLIENTS" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
  touch "$CLIENTS/node_modules/.stamp"
}

install_system_packages() {
  local need missing=()
  for need in "${SYSTEM_NEEDS[@]}"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  may_install || fail "the tests need these Debian packages, and they can't be installed from here: ${missing[*]}"
  apt_install "${missing[@]}"
}

case "${1:-}" in
  package)
    pip_install .
    touch "$VENV/.stamp-run"
    ;;
  package-test)
    pip_install '.[test]'
    touch "$VENV/.stamp-run" "$VENV/.stamp-test"
    ;;
  node) install_node_packages ;;
  system) install_system_packages ;;
  *) fail "usage: setup.sh package | package-test | node | system" ;;
esac
