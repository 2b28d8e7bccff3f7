#!/bin/sh
# Puts every file below seed/ into etcd through its HTTP API: seed/a/b/c.json becomes the
# value of the key <prefix>a/b/c. Needs sh, curl, base64 and find. It may be run again.
set -eu

ETCD_URL=${ETCD_URL:-http://etcd:2379}
ETCD_PREFIX=${ETCD_PREFIX:-/cwm/}
SEED_DIR=${SEED_DIR:-$(dirname "$0")/seed}
SEED_WAIT=${SEED_WAIT:-60}

fail() {
    echo "seed: $*" >&2
    exit 1
}

encode() {
    base64 | tr -d '\n'
}

put() { # key, file
    printf '{"key":"%s","value":"%s"}' "$(printf %s "$1" | encode)" "$(printf %s "$(cat "$2")" | encode)" |
        curl -fsS --max-time 5 --retry 5 --retry-delay 1 --retry-connrefused \
            -o /dev/null -H 'Content-Type: application/json' --data-binary @- "$ETCD_URL/v3/kv/put"
}

waited=0
until curl -fs --max-time 2 -o /dev/null "$ETCD_URL/health"; do
    [ "$waited" -lt "$SEED_WAIT" ] || fail "etcd at $ETCD_URL is not healthy after $SEED_WAIT s"
    waited=$((waited + 1))
    sleep 1
done

cd "$SEED_DIR" || fail "found no directory $SEED_DIR"
files=$(find . -type f -name '*.json' | sort)
[ -n "$files" ] || fail "found no *.json below $SEED_DIR"
for file in $files; do # the names become keys and contain no spaces
    key=${file#./}
    key=${ETCD_PREFIX%/}/${key%.json}
    put "$key" "$file" || fail "cannot put $key"
    echo "seed: $key"
done
