#!/usr/bin/env bash
# Runs the etcd scenario from nothing: a Docker engine, base images or stand-ins, the gateway's
# image, compose up, test.sh, compose down.
#
#   WEBHOOK_IMAGE   tests this image and builds none
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd .. && pwd)
log=$root/target/docker/build.log

say() { echo "docker/ci.sh: [$SECONDS s] $*"; }
compose() { (cd compose/etcd && $COMPOSE "$@"); }

clean_up() {
    local result=$?
    trap - EXIT
    if [ -n "${up:-}" ]; then
        if [ "$result" != 0 ]; then
            compose ps || true
            compose logs --no-color --tail=100 || true
        fi
        compose down -v >/dev/null 2>&1 || true
    fi
    [ -z "${ours:-}" ] || ./dockerd.sh stop
    say "$([ "$result" = 0 ] && echo passed || echo "FAILED ($result)")"
    exit "$result"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

docker version >/dev/null 2>&1 || ours=yes
./dockerd.sh start
if docker compose version >/dev/null 2>&1; then COMPOSE='docker compose'; else COMPOSE=docker-compose; fi
export COMPOSE COMPOSE_PROJECT_NAME=tower-webhook-ci

say "base images"
./stand-ins.sh

if [ -z "${WEBHOOK_IMAGE:-}" ]; then
    export WEBHOOK_IMAGE=tower-webhook:ci
    say "building $WEBHOOK_IMAGE (log: $log)"
    compose build webhook >"$log" 2>&1 || {
        tail -n 60 "$log" >&2
        say "the build failed"
        exit 1
    }
    say "built: $(docker image inspect -f '{{.Size}}' "$WEBHOOK_IMAGE" | numfmt --to=iec) with its base"
fi

say "compose up"
up=yes
compose up -d --no-build >"$root/target/docker/up.log" 2>&1 || {
    tail -n 30 "$root/target/docker/up.log" >&2
    exit 1
}
compose/etcd/test.sh
