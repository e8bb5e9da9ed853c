#!/usr/bin/env bash
# Installs what the Makefile asks for, one step an argument:
#   package        .venv with fal-gateway, all that running needs
#   package-test   the same, with the test tools
#   compiled       the package with its hot modules compiled, beside .venv; named and left out without a C compiler
#   node           the real clients that the tests drive, as their lock file pins them
#   types          Grafana's own types, against which the tests compile the dashboards
#   bench          the peers that `make bench` measures; what cannot be installed is named, and left out there
#   system         Debian packages that the tests start: installed where that is possible, else named
# Each step leaves a stamp file, so that make calls it again only when its inputs have changed.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
CLIENTS=tests/clients
TYPES=tests/dashboards/types
# command that must be there : Debian package that brings it
SYSTEM_NEEDS=("chromium:chromium" "curl:curl" "redis-server:redis-server" "pg_ctlcluster:postgresql"
  "promtool:prometheus")
BENCH=.tools/bench
COMPILED=.tools/compiled
BENCH_NEEDS=("cc:build-essential" "wrk:wrk" "nginx:nginx" "haproxy:haproxy")

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

# Compiles in .venv, which has mypy and the stubs: a build environment of its own would fetch them all once more.
install_compiled() {
  local headers
  headers=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  if ! command -v cc >/dev/null || [ ! -e "$headers/Python.h" ]; then
    may_install && apt_install build-essential python3-dev
  fi
  if ! command -v cc >/dev/null || [ ! -e "$headers/Python.h" ]; then
    printf 'set-up: no C compiler with the headers of Python; the compiled gateway is left out\n' >&2
    return 0
  fi
  rm -rf build "$COMPILED"
  FALGW_COMPILE=1 "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --root-user-action=ignore --no-deps --no-build-isolation --no-index --target "$COMPILED" . >&2
  rm -rf build
  touch "$COMPILED/.stamp"
}

install_node_packages() {
  command -v npm >/dev/null || fail "needs Node 20 or newer with npm, for the real client and the types of dashboards in the tests"
  # --ignore-scripts: nothing that is installed here needs to run code at installation.
  npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
  touch "$1/node_modules/.stamp"
}

install_system_packages() {
  local need missing=()
  for need in "${SYSTEM_NEEDS[@]}"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  may_install || fail "the tests need these Debian packages, and they can't be installed from here: ${missing[*]}"
  apt_install "${missing[@]}"
  [[ " ${missing[*]} " != *" redis-server "* ]] || stop_servers redis-server
  [[ " ${missing[*]} " != *" postgresql "* ]] || stop_servers postgresql
  [[ " ${missing[*]} " != *" prometheus "* ]] || stop_servers prometheus
}

# Debian starts servers as it installs them; here only their programs are wanted. Takes names of services.
stop_servers() {
  systemctl disable --quiet --now "$@" 2>/dev/null || true  # no systemd: nothing was started
}

# Each peer on its own: one that cannot be had is no reason to go without the others.
install_bench() {
  local whole=yes
  install_bench_programs || whole=no
  install_bench_python || whole=no
  install_bench_node || whole=no
  [ "$whole" = no ] || touch "$BENCH/.stamp"
}

missing_peer() {
  printf 'set-up: %s; the benchmark goes without\n' "$*" >&2
  return 1
}

install_bench_programs() {
  local need missing=()
  for need in "${BENCH_NEEDS[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  may_install || missing_peer "no way to install ${missing[*]}" || return
  apt_install "${missing[@]}" || missing_peer "could not install ${missing[*]}" || return
  local server
  for server in nginx haproxy; do
    [[ " ${missing[*]} " != *" $server "* ]] || stop_servers "$server"
  done
}

install_bench_python() {
  local python peers=benchmarks/peers/requirements.txt
  python=$(find_python) || missing_peer "needs Python 3.11 or newer with its venv module" || return
  "$python" -m venv "$BENCH/python" || missing_peer "could not make an environment for the Python peers" || return
  local pip=("$BENCH/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-input
    --root-user-action=ignore)
  "${pip[@]}" --constraint "$peers" aiohttp >&2 || missing_peer "could not install aiohttp" || return
  "${pip[@]}" --requirement "$peers" >&2 || missing_peer "could not install LiteLLM"
}

install_bench_node() {
  command -v npm >/dev/null || missing_peer "needs npm for the Express peer" || return
  mkdir -p "$BENCH/node"
  cp benchmarks/peers/package.json benchmarks/peers/package-lock.json "$BENCH/node/"
  npm ci --prefix "$BENCH/node" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
    missing_peer "could not install @fal-ai/server-proxy and Express"
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
  compiled) install_compiled ;;
  node) install_node_packages "$CLIENTS" ;;
  types) install_node_packages "$TYPES" ;;
  bench) install_bench ;;
  system) install_system_packages ;;
  *) fail "usage: setup.sh package | package-test | compiled | node | bench | system" ;;
esac
