#!/usr/bin/env bash
# Checks every promise of README.md against the running stack, and stops at the first one that
# is broken. Needs bash 5, curl, base64 and the compose client. It may be run again.
set -euo pipefail
cd "$(dirname "$0")"

BASE_URL=${BASE_URL:-http://localhost:8000}
ETCD_URL=${ETCD_URL:-http://localhost:2379}
START_WAIT=${START_WAIT:-60} # seconds, for the stack to start and for etcd to come back

if [ -z "${COMPOSE:-}" ]; then
    if docker compose version >/dev/null 2>&1; then COMPOSE='docker compose'; else COMPOSE=docker-compose; fi
fi
compose() { $COMPOSE "$@"; }

scratch=$(mktemp -d)
stopped_etcd=
passed=0

clean_up() {
    if [ -n "$stopped_etcd" ]; then compose start etcd >/dev/null 2>&1 || true; fi
    for id in new_hook late_hook; do kv deleterange "/cwm/default/webhooks/$id" >/dev/null 2>&1 || true; done
    rm -rf "$scratch"
}
trap clean_up EXIT

# ---- small tools -------------------------------------------------------------------

fail() {
    echo "not ok - $1" >&2
    shift
    for line in "$@"; do echo "  $line" >&2; done
    echo "$passed passed, 1 failed"
    exit 1
}

ok() {
    passed=$((passed + 1))
    echo "ok - $1"
}

# request METHOD PATH [CURL OPTIONS]: sets $status, $body and $head.
request() {
    local method=$1 path=$2
    shift 2
    : >"$scratch/head"
    : >"$scratch/body"
    status=$(curl -sS --max-time 15 -X "$method" -D "$scratch/head" -o "$scratch/body" -w '%{http_code}' \
        "$@" "$BASE_URL$path" 2>"$scratch/error") || status="none ($(cat "$scratch/error"))"
    body=$(cat "$scratch/body")
    head=$(tr -d '\r' <"$scratch/head")
}

# post PATH TOKEN [BODY]: sends an event.
post() {
    request POST "$1" -H "Authorization: Bearer $2" -H 'Content-Type: application/json' -d "${3:-{\}}"
}

has_header() { grep -qi "^$1" <<<"$head"; }

expect() { # WHAT STATUS
    [ "$status" = "$2" ] || fail "$1" "expected $2, got $status" "$body"
}

accepted() { # WHAT, after a request
    expect "$1" 200
    [ "$body" = '{"message":"200 OK"}' ] || fail "$1" "unexpected body: $body"
    has_header 'x-event-id: .' || fail "$1" "no X-Event-Id"
    ok "$1"
}

refused() { # WHAT STATUS [HEADER], after a request
    expect "$1" "$2"
    has_header 'content-type: application/problem+json' || fail "$1" "not application/problem+json"
    grep -q '"detail"' <<<"$body" || fail "$1" "no detail: $body"
    [ -z "${3:-}" ] || has_header "$3" || fail "$1" "no header $3"
    ok "$1"
}

# within SECONDS COMMAND...: runs the command every 50 ms until it succeeds; sets $took, in ms.
within() {
    local limit=$(($1 * 1000)) start
    shift
    start=$((${EPOCHREALTIME/[.,]/} / 1000))
    while true; do
        if "$@"; then
            took=$((${EPOCHREALTIME/[.,]/} / 1000 - start))
            [ "$took" -le "$limit" ]
            return
        fi
        [ $((${EPOCHREALTIME/[.,]/} / 1000 - start)) -lt "$limit" ] || return 1
        sleep 0.05
    done
}

answers() { # STATUS PATH [TOKEN]
    post "$2" "${3:-test_token_123}"
    [ "$status" = "$1" ]
}

b64() { printf %s "$1" | base64 | tr -d '\n'; }

# kv put KEY VALUE | kv deleterange KEY: prints the revision that etcd gave it.
kv() {
    local json
    json="{\"key\":\"$(b64 "$2")\"${3:+,\"value\":\"$(b64 "$3")\"}}"
    curl -fsS --max-time 5 -H 'Content-Type: application/json' -d "$json" "$ETCD_URL/v3/kv/$1" |
        sed -n 's/.*"revision":"\([0-9]*\)".*/\1/p' | grep .
}

hook() { # TOKEN: the value of a webhook that logs
    echo "{\"data_type\":\"json\",\"module\":\"log\",\"authorization\":\"Bearer $1\",\"module-config\":{\"pretty_print\":true}}"
}

# change ARGUMENTS OF KV...: a change that must succeed; sets $revision.
change() { revision=$(kv "$@") || fail "etcd at $ETCD_URL takes a change" "$1 $2"; }

put_late_hook() { revision=$(kv put /cwm/default/webhooks/late_hook "$(hook late_token)" 2>/dev/null); }

alive() {
    request GET /health
    [ "$status" = 200 ]
}

saved() { # TEXT: a file below the module's path contains it
    docker cp "$webhook:/app/data/webhooks" - 2>/dev/null | tar -xO 2>/dev/null | grep -q "$1"
}

# ---- the stack is up ---------------------------------------------------------------

hint=("Is the stack up?  cd $PWD && $COMPOSE up -d"
    "What it says:     $COMPOSE ps;  $COMPOSE logs webhook etcd etcd-seed")
webhook=$(compose ps -q webhook 2>/dev/null) || true
[ -n "$webhook" ] || fail "the stack is not up: no container of the service webhook" "${hint[@]}"
within "$START_WAIT" alive || fail "no gateway at $BASE_URL/health after $START_WAIT s: $status" "${hint[@]}"
within "$START_WAIT" answers 200 /webhook/staging/test_log_staging staging_token_456 ||
    fail "the seeded webhooks are not served after $START_WAIT s: $status" "${hint[@]}"

request GET /
expect "GET / answers 200" 200
[ "$body" = '{"message":"200 OK"}' ] || fail "GET / answers 200" "unexpected body: $body"
ok "GET / answers 200"
request GET /health
expect "GET /health answers 200" 200
grep -q '"status".*"etcd"\|"etcd".*"status"' <<<"$body" || fail "GET /health names status and etcd" "$body"
ok "GET /health answers 200 and names status and etcd"
request GET /ready
expect "GET /ready answers 200" 200
ok "GET /ready answers 200"
request GET '/ready?min_revision=999999999' --max-time 1
[ "$status" != 200 ] || fail "GET /ready does not promise a revision that etcd has not reached"
ok "GET /ready does not promise a revision that etcd has not reached"
request GET /metrics
expect "GET /metrics answers 200" 200
ok "GET /metrics answers 200"

# ---- the seeded webhooks -----------------------------------------------------------

marker="saved-$$-${EPOCHREALTIME/[.,]/}"
post /webhook/test_log test_token_123 '{"hello": "world"}'
accepted "test_log takes an event"
post /webhook/test_save test_token_123 "{\"save\": \"$marker\"}"
accepted "test_save takes an event"
within 5 saved "$marker" || fail "test_save wrote a file below /app/data/webhooks" "no file there holds $marker"
ok "test_save wrote a file below /app/data/webhooks"
post /webhook/staging/test_log_staging staging_token_456 '{"env": "staging"}'
accepted "staging/test_log_staging takes an event"
post /webhook/default/test_log test_token_123
accepted "default/test_log is test_log"

# ---- refusals ----------------------------------------------------------------------

request POST /webhook/test_log -H 'Content-Type: application/json' -d '{}'
refused "no token: 401" 401 'www-authenticate: bearer'
post /webhook/test_log wrong_token
refused "a wrong token: 401" 401 'www-authenticate: bearer'
post /webhook/staging/test_log_staging test_token_123
refused "another namespace's token: 401" 401 'www-authenticate: bearer'
post /webhook/no_such_hook test_token_123
refused "an unknown id: 404" 404
post /webhook/test_log_staging staging_token_456
refused "staging's webhook is not in the default namespace: 404" 404
post /webhook/staging/test_log test_token_123
refused "the default namespace's webhook is not in staging: 404" 404
request GET /webhook/test_log
refused "GET on a webhook: 405 with Allow" 405 'allow: post$'
post /webhook/test_log test_token_123 '{"broken":'
refused "broken JSON: 400" 400

# ---- changes at run time -----------------------------------------------------------

change deleterange /cwm/default/webhooks/new_hook
within 5 answers 404 /webhook/new_hook || fail "new_hook is not there before it is added" "got $status"

change put /cwm/default/webhooks/new_hook "$(hook test_token_123)"
within 1 answers 200 /webhook/new_hook || fail "a new webhook is served within 1 s" "last answer: $status" "$body"
ok "a new webhook is served within 1 s (${took} ms)"
post /webhook/new_hook test_token_123 '{"dynamic": true}'
accepted "new_hook takes an event"

change put /cwm/default/webhooks/new_hook "$(hook second_token)"
request GET "/ready?min_revision=$revision"
expect "GET /ready?min_revision=$revision answers 200" 200
ok "GET /ready?min_revision waits for the change"
post /webhook/new_hook second_token
accepted "after it, the new token is accepted"
post /webhook/new_hook test_token_123
refused "after it, the old token is refused: 401" 401 'www-authenticate: bearer'

change deleterange /cwm/default/webhooks/new_hook
request GET "/ready?min_revision=$revision"
expect "GET /ready?min_revision=$revision answers 200" 200
post /webhook/new_hook second_token
refused "a deleted webhook: 404" 404

# ---- etcd goes away and comes back -------------------------------------------------

stopped_etcd=yes
compose stop etcd >/dev/null 2>&1 || fail "cannot stop etcd"
if kv deleterange /cwm/default/webhooks/late_hook >/dev/null 2>&1; then fail "etcd is stopped" "$ETCD_URL still answers"; fi
for _ in 1 2 3 4 5; do
    post /webhook/test_log test_token_123
    expect "without etcd, test_log still takes events" 200
    sleep 0.2
done
ok "without etcd, test_log still takes events"
post /webhook/test_save test_token_123 "{\"save\": \"$marker-without-etcd\"}"
accepted "without etcd, test_save still takes events"
within 5 saved "$marker-without-etcd" || fail "without etcd, test_save still writes" "no file holds $marker-without-etcd"
post /webhook/test_log wrong_token
refused "without etcd, a wrong token is still refused: 401" 401
alive || fail "without etcd, /health answers 200" "got $status" "$body"
ok "without etcd, /health answers 200"

compose start etcd >/dev/null 2>&1 || fail "cannot start etcd"
stopped_etcd=
within "$START_WAIT" put_late_hook || fail "etcd is back" "no put succeeds after $START_WAIT s"
within "$START_WAIT" answers 200 /webhook/late_hook late_token ||
    fail "a webhook added after etcd came back is served" "last answer: $status" "$body"
ok "a webhook added after etcd came back is served (${took} ms)"
request GET "/ready?min_revision=$revision"
expect "GET /ready?min_revision=$revision answers 200" 200
ok "the gateway has etcd's newest revision again"
post /webhook/test_log test_token_123
accepted "test_log takes events as before"

echo "$passed passed, 0 failed"
