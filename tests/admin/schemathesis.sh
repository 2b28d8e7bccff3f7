#!/usr/bin/env bash
# Holds the admin routes of a running gateway against their own description (/admin/openapi.json): schemathesis sends right
# and wrong requests for each route, and looks for an answer that the description does not have, and for a 500.
#
#   tests/admin/schemathesis.sh [GATEWAY] [ARGUMENT...]   GATEWAY is a program, by default target/debug/gateway
set -euo pipefail
cd "$(dirname "$0")/../.."

gateway=${1:-target/debug/gateway}
shift || true
tools=$PWD/target/tools/schemathesis
[ -d "$tools/schemathesis" ] || { echo "schemathesis is missing; .ci/tools.sh all brings it" >&2; exit 1; }

directory=$(mktemp -d)
pid=
finish() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
  rm -rf "$directory"
}
trap finish EXIT

# A free port below those that the system gives to clients.
port=$(python3 - <<'PYTHON'
import random, socket
while True:
    port = random.randint(20000, 32000)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            print(port)
            break
PYTHON
)
# Nothing listens on port 9, so the events of `lost` become dead letters, and those of `late` wait.
cat >"$directory/webhooks.json" <<'JSON'
{"namespaces": {
  "shop": {
    "direct": {"module": "discard", "authorization": "Bearer x"},
    "form": {"module": "discard", "data_type": "form"},
    "lost": {"module": "http_webhook", "ack": "accepted", "retry": {"enabled": true, "max_attempts": 1},
      "module-config": {"url": "http://127.0.0.1:9/"}},
    "late": {"module": "http_webhook", "ack": "accepted",
      "retry": {"enabled": true, "max_attempts": 20, "initial_delay": 600}, "module-config": {"url": "http://127.0.0.1:9/"}},
    "broken": {"module": "none"}
  },
  "default": {"open": {"module": "discard"}}
}}
JSON
token=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
env -i PATH="$PATH" HOST=127.0.0.1 PORT="$port" ADMIN_TOKEN="$token" EGRESS_ALLOW=127.0.0.0/8 \
  WEBHOOKS_CONFIG_FILE="$directory/webhooks.json" CONNECTIONS_CONFIG_FILE="$directory/connections.json" \
  SPOOL_DIR="$directory/spool" HISTORY_DIR="$directory/history" SAVE_TO_DISK_ROOT="$directory/data" \
  "$gateway" 2>"$directory/log" &
pid=$!
url=http://127.0.0.1:$port
for _ in $(seq 100); do
  curl -sf "$url/ready" >/dev/null && break
  kill -0 "$pid" 2>/dev/null || { cat "$directory/log" >&2; exit 1; }
  sleep 0.1
done
for webhook in shop/lost shop/late default/open; do
  for _ in 1 2 3; do
    curl -s -o /dev/null -X POST -H "Content-Type: application/json" -d '{"n":1}' "$url/webhook/$webhook"
  done
done

# The id of a row of a list; of nothing, if the list has none.
id_in() {
  curl -s -H "Authorization: Bearer $token" "$url/admin/$1" | python3 -c '
import json, sys
rows = json.load(sys.stdin).get(sys.argv[1]) or [{}]
print(rows[0].get("id", "019c8a3e-0000-7000-8000-000000000000"))' "$2"
}
for _ in $(seq 100); do
  [ "$(curl -s -H "Authorization: Bearer $token" "$url/admin/dead-letters" | grep -c '"id"')" = 0 ] || break
  sleep 0.1
done
# A bulk request without a filter is a 400, which a description of single parameters cannot say. A revision that is not
# reached is a 503 after 10 s.
cat >"$directory/schemathesis.toml" <<TOML
warnings = false

[[operations]]
include-path = ["/dead-letters/replay", "/dead-letters/delete"]
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/ready"
checks.not_a_server_error.enabled = false
checks.max_response_time = 15

[[operations]]
include-path-regex = "^/dead-letters/.id"
parameters = { id = "$(id_in dead-letters dead_letters)" }

[[operations]]
include-path-regex = "^/waiting/.id"
parameters = { id = "$(id_in waiting waiting)" }

[[operations]]
include-path-regex = "^/events/.id"
parameters = { id = "$(id_in events events)" }

[[operations]]
include-path-regex = "^/webhooks/.namespace"
parameters = { namespace = "shop", webhook = "direct" }
TOML

# A stream of events has no end, so it is left out.
PYTHONPATH=$tools python3 -m schemathesis.cli --config-file "$directory/schemathesis.toml" run \
  "$url/admin/openapi.json" --url "$url/admin" -H "Authorization: Bearer $token" --exclude-path /events/live \
  --continue-on-failure --request-timeout 20 --max-examples 5 --seed 1 --no-color "$@"
# The gateway still serves, and no request has made a handler panic.
curl -sf "$url/health" >/dev/null
if grep -E "panicked|ERROR" "$directory/log" | grep -v "dead letter"; then exit 1; fi
