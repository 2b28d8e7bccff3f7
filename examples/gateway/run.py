#!/usr/bin/env python3
"""Runs the scenario on this machine, without containers: a seeded etcd (or files) and the gateway.

`make run` brings etcd, builds the gateway and calls this. Everything it writes is below target/run.
With --check it sends the scenario's requests itself, tells what held, and stops.
"""

import argparse
import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
RUN = ROOT / "target/run"
DATA = RUN / "data"
SEED = ROOT / "docker/compose/etcd/seed"
PREFIX = "/cwm/"
NEW_HOOK = {
    "data_type": "json",
    "module": "log",
    "authorization": "Bearer test_token_123",
    "module-config": {"pretty_print": True},
}


class Failure(Exception):
    """What ends the run with status 1; its text is for the user."""


class Stopped(Exception):
    """The user asked to stop."""


def say(text=""):
    print(text, flush=True)


# --- processes ---------------------------------------------------------------------------------------------------


class Processes:
    """The children, in the order of their start. Each has a session of its own, so that Ctrl-C reaches this script
    only, and the script decides who stops first."""

    def __init__(self):
        self.running = {}
        self.stop_asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask_stop)

    def _ask_stop(self, *_):
        self.stop_asked = True

    def start(self, name, argv, env, log=None):
        out = open(log, "ab") if log else None
        self.running[name] = subprocess.Popen(
            [str(a) for a in argv], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        if out:
            out.close()

    def pause(self, seconds=0.02):
        """Every wait goes through here: it ends when the user asks to stop or a child has died."""
        time.sleep(seconds)
        if self.stop_asked:
            raise Stopped
        for name, child in self.running.items():
            if child.poll() is not None:
                raise Failure(f"{name} ended by itself, with status {child.returncode}")

    def wait_until(self, true, what, seconds=60):
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise Failure(f"{what}: not within {seconds} s")
            self.pause()

    def stop(self, name, seconds=40):
        """Ends one child by SIGTERM and returns its exit status, or None where it had to be killed."""
        child = self.running.pop(name)
        if child.poll() is None:
            child.terminate()
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return None

    def stop_all(self):
        for name in reversed(list(self.running)):
            self.stop(name)


# --- HTTP --------------------------------------------------------------------------------------------------------


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def call(port, method, path, body=None, headers=None):
    """One request to this machine; None if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def port_of(variable, default):
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Failure(f"{variable}={text}: not a port")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            raise Failure(f"port {text}: {error.strerror}; choose another with {variable}=…") from None
    return int(text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- where the configuration is kept -----------------------------------------------------------------------------


def seed():
    """The scenario's tree: the key below the prefix → the value."""
    files = sorted(SEED.rglob("*.json"))
    if not files:
        raise Failure(f"no seed in {SEED.relative_to(ROOT)}")
    return {path.relative_to(SEED).with_suffix("").as_posix(): path.read_text().rstrip("\n") for path in files}


class Etcd:
    name = "etcd"

    def __init__(self, processes, keep):
        self.processes = processes
        self.port = port_of("ETCD_PORT", 2379)
        self.data, self.log = RUN / "etcd", RUN / "etcd.log"
        if not keep:
            shutil.rmtree(self.data, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def start(self):
        fresh = not self.data.exists()
        self.up()
        if fresh:
            for key, value in seed().items():
                self.put(key, value)

    def up(self):
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        # etcd takes ETCD_* for its own flags.
        env = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
        etcd = [ROOT / "target/tools/bin/etcd", "--name=run", f"--data-dir={self.data}", "--log-level=warn"]
        urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
        cluster = [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=run={peer}"]
        self.processes.start("etcd", etcd + urls + cluster, env, self.log)

        def healthy():
            answer = call(self.port, "GET", "/health")
            return answer is not None and answer.status == 200

        self.processes.wait_until(healthy, f"etcd healthy (see {self.log.relative_to(ROOT)})")

    def down(self):
        self.processes.stop("etcd")

    def environment(self):
        return {
            "CONFIG_BACKEND": "etcd",
            "ETCD_HOST": "127.0.0.1",
            "ETCD_PORT": str(self.port),
            "ETCD_PREFIX": PREFIX,
            "ETCD_NAMESPACE": "default",
        }

    def put(self, key, value):
        return self._kv("put", {"key": PREFIX + key, "value": value})

    def delete(self, key):
        return self._kv("deleterange", {"key": PREFIX + key})

    def _kv(self, verb, fields):
        """Returns the revision that the change made."""
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in fields.items()}
        answer = call(self.port, "POST", f"/v3/kv/{verb}", json.dumps(encoded))
        if answer is None or answer.status != 200:
            raise Failure(f"etcd refused {verb} {fields['key']}")
        return int(answer.json()["header"]["revision"])

    def wait_served(self, revision, port, _shown, seconds=60):
        """The gateway itself tells when it has reached a revision; it is asked nothing else meanwhile."""

        def reached():
            answer = call(port, "GET", f"/ready?min_revision={revision}")
            return answer is not None and answer.status == 200

        self.processes.wait_until(reached, f"revision {revision} served", seconds)

    def how_to_change(self, port):
        value = json.dumps(NEW_HOOK, separators=(",", ":"))
        return f"""# a new hook, served at once
KEY=$(echo -n '{PREFIX}default/webhooks/new_hook' | base64 | tr -d '\\n')
VAL=$(echo -n '{value}' | base64 | tr -d '\\n')
curl -X POST http://localhost:{self.port}/v3/kv/put \\
  -H "Content-Type: application/json" \\
  -d "{{\\"key\\":\\"${{KEY}}\\",\\"value\\":\\"${{VAL}}\\"}}"
"""


class Files:
    name = "file"

    def __init__(self, processes, keep):
        self.processes = processes
        self.keep = keep
        self.webhooks, self.connections = RUN / "webhooks.json", RUN / "connections.json"

    def start(self):
        if self.keep and self.webhooks.exists():
            return
        namespaces, connections = {}, {}
        for key, value in seed().items():
            namespace, kind, name = key.split("/")
            table = namespaces.setdefault(namespace, {}) if kind == "webhooks" else connections
            table[name] = json.loads(value)
        self._write(self.webhooks, {"namespaces": namespaces})
        self._write(self.connections, connections)

    def environment(self):
        return {
            "CONFIG_BACKEND": "file",
            "WEBHOOKS_CONFIG_FILE": str(self.webhooks),
            "CONNECTIONS_CONFIG_FILE": str(self.connections),
        }

    def put(self, key, value):
        self._change(key, lambda table, name: table.__setitem__(name, json.loads(value)))

    def delete(self, key):
        self._change(key, lambda table, name: table.pop(name))

    def _change(self, key, change):
        namespace, _, name = key.split("/")
        config = json.loads(self.webhooks.read_text())
        change(config["namespaces"].setdefault(namespace, {}), name)
        self._write(self.webhooks, config)

    def _write(self, path, value):
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(value, indent=2) + "\n")
        beside.replace(path)

    def wait_served(self, _revision, _port, shown, seconds=60):
        """A file has no revisions: the change is there when its effect is."""
        self.processes.wait_until(shown, "the changed file served", seconds)

    def how_to_change(self, port):
        return f"""# a new hook: add it under "namespaces", "default" in this file and save; it is served at once
#   "new_hook": {json.dumps(NEW_HOOK)}
${{EDITOR:-vi}} {self.webhooks.relative_to(ROOT)}
"""


# --- the gateway -------------------------------------------------------------------------------------------------


def start_gateway(processes, gateway, backend, port, log, extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
    env.update(backend.environment(), HOST="127.0.0.1", PORT=str(port), SAVE_TO_DISK_ROOT=str(DATA), **extra)
    processes.start("the gateway", [gateway], env, log)

    def ready():
        answer = call(port, "GET", "/ready")
        return answer is not None and answer.status == 200

    processes.wait_until(ready, "the gateway ready")


def things_to_try(backend, port):
    def hook(path, token, body):
        return f"""curl -X POST http://localhost:{port}/webhook/{path} \\
  -H "Authorization: Bearer {token}" \\
  -H "Content-Type: application/json" \\
  -d '{body}'
"""

    return f"""
The gateway runs at http://localhost:{port}. To try it, in another terminal:

{hook("test_log", "test_token_123", '{"hello": "world"}')}
# kept below {DATA.relative_to(ROOT)}
{hook("test_save", "test_token_123", '{"save": "this"}')}
{hook("staging/test_log_staging", "staging_token_456", '{"env": "staging"}')}
{backend.how_to_change(port)}
{hook("new_hook", "test_token_123", '{"dynamic": true}')}
curl http://localhost:{port}/health
curl http://localhost:{port}/metrics

Ctrl-C stops it.
"""


# --- --check -----------------------------------------------------------------------------------------------------


class Check:
    """The scenario's contract, asked of the running gateway. The first falsehood ends it."""

    def __init__(self, processes, backend, port, admin_token):
        self.processes, self.backend, self.port, self.admin_token = processes, backend, port, admin_token
        self.passed = 0

    def all(self):
        self.operators_routes()
        self.hooks_of_the_seed()
        self.refusals()
        self.changes()
        if self.backend.name == "etcd":
            self.etcd_away()
        self.clean_stop()

    def ok(self, holds, what, answer=None):
        if not holds:
            seen = f"; got {answer.status} {dict(answer.headers)} {answer.body[:500]!r}" if answer else ""
            raise Failure(f"not ok - {what}{seen}")
        self.processes.pause(0)
        self.passed += 1
        say(f"ok - {what}")

    def get(self, path, headers=None):
        answer = call(self.port, "GET", path, headers=headers)
        if answer is None:
            raise Failure(f"no answer to GET {path}")
        return answer

    def post(self, hook, token=None, body='{"hello": "world"}', headers=None, method="POST"):
        headers = {"Content-Type": "application/json", **(headers or {})}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answer = call(self.port, method, f"/webhook/{hook}", body, headers)
        if answer is None:
            raise Failure(f"no answer to {method} /webhook/{hook}")
        return answer

    def accepted(self, what, *args, **kwargs):
        answer = self.post(*args, **kwargs)
        good = answer.status == 200 and answer.json() == {"message": "200 OK"} and answer.headers["X-Event-Id"]
        self.ok(good, f"{what}: 200", answer)

    def refused(self, what, status, *args, header=None, **kwargs):
        answer = self.post(*args, **kwargs)
        problem = answer.json() or {}
        good = answer.status == status and "detail" in problem
        good = good and (header is None or (answer.headers[header[0]] or "").startswith(header[1]))
        self.ok(good, f"{what}: {status}{f', {header[0]}: {header[1]}' if header else ''}", answer)

    def operators_routes(self):
        root, health = self.get("/"), self.get("/health")
        self.ok(root.status == 200 and root.json() == {"message": "200 OK"}, "GET /: 200", root)
        report = health.json() or {}
        good = health.status == 200 and "status" in report
        if self.backend.name == "etcd":
            good = good and self.etcd_state(health) == "healthy"
        self.ok(good, "GET /health: 200, healthy", health)
        metrics = self.get("/metrics")
        self.ok(metrics.status == 200 and b"# TYPE " in metrics.body, "GET /metrics: 200, Prometheus text", metrics)
        closed = self.get("/admin/config-status")
        self.ok(closed.status == 401, "GET /admin/config-status without its token: 401", closed)

    @staticmethod
    def etcd_state(health):
        return ((health.json() or {}).get("components") or {}).get("etcd")

    def hooks_of_the_seed(self):
        self.accepted("test_log", "test_log", "test_token_123")
        before = set(DATA.rglob("*"))
        self.accepted("test_save", "test_save", "test_token_123", '{"save": "this"}')
        kept = [path for path in set(DATA.rglob("*")) - before if path.is_file()]
        same = len(kept) == 1 and kept[0].read_text() == '{"save": "this"}'
        self.ok(same, "test_save: the body is on disk, byte for byte, when the answer comes")
        self.accepted("staging/test_log_staging", "staging/test_log_staging", "staging_token_456")
        self.accepted("default/test_log, the namespace named", "default/test_log", "test_token_123")

    def refusals(self):
        bearer = ("WWW-Authenticate", "Bearer")
        self.refused("no credential", 401, "test_log", header=bearer)
        self.refused("a wrong credential", 401, "test_log", "wrong", header=bearer)
        self.refused("another namespace's credential", 401, "staging/test_log_staging", "test_token_123", header=bearer)
        self.refused("an unknown hook", 404, "nobody", "test_token_123")
        self.refused("a hook of another namespace", 404, "test_log_staging", "staging_token_456")
        self.refused("an unknown namespace", 404, "nowhere/test_log", "test_token_123")
        self.refused("a bad id", 400, "a--b", "test_token_123")
        self.refused("another method", 405, "test_log", "test_token_123", method="PUT", header=("Allow", "POST"))
        self.refused("not JSON", 400, "test_log", "test_token_123", '{"hello": ')
        self.refused("trailing data", 400, "test_log", "test_token_123", "{} {}")
        self.refused("nested too deep", 400, "test_log", "test_token_123", "[" * 100_000)
        # The length is announced only; a server that waited for the bytes would not answer.
        self.refused("too large", 413, "test_log", "test_token_123", None, {"Content-Length": str(1 << 40)})

    def changes(self):
        new, never = "default/webhooks/new_hook", "default/webhooks/never_good"
        self.refused("a hook not yet there", 404, "new_hook", "test_token_123")
        took = self.change(new, NEW_HOOK, lambda: self.post("new_hook", "test_token_123").status == 200)
        self.accepted(f"a hook added at runtime ({took:.0f} ms from the write)", "new_hook", "test_token_123")
        rotated = dict(NEW_HOOK, authorization="Bearer rotated")
        took = self.change(new, rotated, lambda: self.post("new_hook", "rotated").status == 200)
        self.accepted(f"its credential changed ({took:.0f} ms)", "new_hook", "rotated")
        self.refused("the old credential", 401, "new_hook", "test_token_123", header=("WWW-Authenticate", "Bearer"))
        # A misspelt guard must not open a hook: the value is refused, and the last good one keeps serving.
        self.backend.put(new, json.dumps({"module": "log", "authorisation": "Bearer x"}))
        self.change(never, {"module": "no_such_module"}, lambda: self.post("never_good").status == 503)
        self.accepted("a bad value put: the last good one serves", "new_hook", "rotated")
        self.refused("a hook that never had a good value", 503, "never_good", "test_token_123")
        status = self.get("/admin/config-status", {"Authorization": f"Bearer {self.admin_token}"})
        told = status.status == 200 and b"never_good" in status.body and b"authorisation" in status.body
        self.ok(told, "GET /admin/config-status tells both refused keys", status)
        self.change(never, None, lambda: self.post("never_good").status == 404)
        took = self.change(new, None, lambda: self.post("new_hook").status == 404)
        self.refused(f"a hook deleted ({took:.0f} ms)", 404, "new_hook", "rotated")

    def change(self, key, value, shown):
        """Puts (or deletes) a key and waits until it is served; the milliseconds that took."""
        mark = self.backend.delete(key) if value is None else self.backend.put(key, json.dumps(value))
        begin = time.monotonic()
        self.backend.wait_served(mark, self.port, shown)
        return (time.monotonic() - begin) * 1000

    def etcd_away(self):
        self.backend.down()
        self.accepted("etcd stopped: its last configuration serves", "test_log", "test_token_123")

        def noticed():
            health = self.get("/health")
            return health.status == 200 and self.etcd_state(health) in ("stale", "disconnected")

        self.processes.wait_until(noticed, "etcd's absence in /health")
        self.ok(True, "GET /health: 200, and tells that etcd is away")
        self.backend.up()
        took = self.change("default/webhooks/new_hook", NEW_HOOK, lambda: False)
        self.accepted(f"etcd back: a put is served ({took:.0f} ms)", "new_hook", "test_token_123")

    def clean_stop(self):
        self.ok(self.processes.stop("the gateway") == 0, "SIGTERM: the gateway exits with 0")


# --- all together ------------------------------------------------------------------------------------------------


def run(args, processes):
    if not args.gateway.is_file():
        raise Failure(f"no {args.gateway}: `make run` builds it")
    DATA.mkdir(parents=True, exist_ok=True)
    port = port_of("PORT", 8000)
    backend = {"etcd": Etcd, "file": Files}[args.backend](processes, args.keep)
    backend.start()
    if not args.check:
        start_gateway(processes, args.gateway, backend, port, None, {})
        say(things_to_try(backend, port))
        while True:
            processes.pause(0.2)

    log, token = RUN / "gateway.log", os.urandom(16).hex()
    log.unlink(missing_ok=True)
    check = Check(processes, backend, port, token)
    try:
        start_gateway(processes, args.gateway, backend, port, log, {"ADMIN_TOKEN": token})
        check.all()
    except Failure:
        say("the gateway's last lines:")
        say("\n".join("  " + line for line in log.read_text(errors="replace").splitlines()[-30:]))
        say(f"{check.passed} passed, 1 failed")
        raise
    say(f"{check.passed} passed, 0 failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["etcd", "file"], default="etcd")
    parser.add_argument("--check", action="store_true", help="send the scenario's requests, tell what held, stop")
    parser.add_argument("--keep", action="store_true", help="go on with the configuration of the run before")
    parser.add_argument("--gateway", type=Path, default=TARGET / "release/gateway", help="another executable")
    args = parser.parse_args()

    processes = Processes()
    status = 0
    try:
        run(args, processes)
    except Stopped:
        say("stopping")
        status = 1 if args.check else 0
        if "the gateway" in processes.running and processes.stop("the gateway") != 0:
            say("run: the gateway did not end cleanly")
            status = 1
    except Failure as failure:
        print(f"run: {failure}", file=sys.stderr, flush=True)
        status = 1
    finally:
        processes.stop_all()
    sys.exit(status)


if __name__ == "__main__":
    main()
