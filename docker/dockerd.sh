#!/usr/bin/env bash
# Starts a Docker engine where none runs. `dockerd.sh start` installs Debian's packages if the
# programs are missing (as root) and starts the engine; `dockerd.sh stop` ends the engine that
# `start` started, and no other. Both print nothing if there is nothing to do.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
state=$root/target/docker
pid_file=$state/dockerd.pid
log=$state/dockerd.log

fail() {
    echo "dockerd: $*" >&2
    exit 1
}

install_missing() {
    local packages=()
    command -v docker >/dev/null && { docker version >/dev/null 2>&1 || command -v dockerd >/dev/null; } ||
        packages+=(docker.io)
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || packages+=(docker-compose)
    [ ${#packages[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "found no ${packages[*]}; install them, or run this as root"
    echo "dockerd: installing ${packages[*]} ..."
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
        apt-get install -qy --no-install-recommends "${packages[@]}"; } >"$state/apt.log" 2>&1 ||
        { tail -n 20 "$state/apt.log" >&2; fail "apt-get failed"; }
}

# The MTU of the default route's interface, which may be less than Ethernet's 1500 bytes.
mtu() {
    cat "/sys/class/net/$(awk '$2 == "00000000" { print $1; exit }' /proc/net/route)/mtu" 2>/dev/null || echo 1500
}

start() {
    mkdir -p "$state"
    install_missing
    ! docker version >/dev/null 2>&1 || return 0
    [ "$(id -u)" = 0 ] || fail "no Docker engine answers, and only root can start one"
    setsid nohup dockerd --mtu "$(mtu)" >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    for _ in $(seq 120); do
        if docker version >/dev/null 2>&1; then
            echo "dockerd: started, storage driver $(docker info -f '{{.Driver}}' 2>/dev/null), log in $log"
            return
        fi
        kill -0 "$(cat "$pid_file")" 2>/dev/null || break
        sleep 0.5
    done
    tail -n 20 "$log" >&2
    stop
    fail "did not start"
}

stop() {
    [ -f "$pid_file" ] || return 0
    local pid
    pid=$(cat "$pid_file")
    rm -f "$pid_file"
    # The process id may belong to another process by now.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 0
    kill "$pid"
    for _ in $(seq 60); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.5
    done
    fail "process $pid does not stop"
}

case ${1:-} in
start | stop) "$1" ;;
*) fail "usage: dockerd.sh start|stop" ;;
esac
