#!/usr/bin/env python3
"""Runs the scenario on this machine, without containers: a seeded etcd (or files) and the gateway.

`make run` fetches etcd, builds the gateway and calls this script, which prints commands to try and runs until Ctrl-C.
With --check it runs these commands, compares their output, compares the commands with those of the READMEs, and stops.
Everything it writes is below target/run.
"""

import argparse
import base64
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
SEED = ROOT / "docker/compose/etcd/seed"
PREFIX = "/cwm/"
NEW_HOOK = {
    "data_type": "json",
    "module": "log",
    "authorization": "Bearer test_token_123",
    "module-config": {"pretty_print": True},
}
TAKEN = '{"message":"200 OK"}'
# Pages whose commands for a webhook must be among the printed ones.
READMES = [ROOT / "README.md", ROOT / "docker/compose/etcd/README.md"]
# The longest wait, in seconds.
PATIENCE = 60


class Failure(Exception):
    """Ends the run with status 1; its text is for the user."""


class Stopped(Exception):
    """The user asked to stop."""


class Processes:
    """The child processes. Each has its own session, so that Ctrl-C reaches only this script, which stops them in order."""

    def __init__(self):
        self.running = {}
        self.stop_asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask_stop)

    def _ask_stop(self, *_):
        self.stop_asked = True

    def start(self, name, argv, env, log=None):
        out = open(log, "wb") if log else None
        self.running[name] = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )

    def pause(self, seconds=0.05):
        """Every wait calls this: it raises when the user asks to stop or a child has ended."""
        time.sleep(seconds)
        if self.stop_asked:
            raise Stopped
        for name, child in self.running.items():
            if child.poll() is not None:
                raise Failure(f"{name} ended unexpectedly with status {child.returncode}")

    def wait_until(self, true, what):
        end = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > end:
                raise Failure(f"{what}: did not happen within {PATIENCE} s")
            self.pause()

    def stop_all(self):
        """Stops the children, the last one first. Returns the names of those that did not end with status 0."""
        failed = []
        for name, child in reversed(self.running.items()):
            if child.poll() is None:
                child.terminate()
            try:
                status = child.wait(40)
            except subprocess.TimeoutExpired:
                child.kill()
                status = child.wait()
            if status != 0:
                failed.append(name)
        self.running.clear()
        return failed


def answers(url):
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def free_port(variable=None, default=0):
    """A port that is free: a server that already listens there could be mistaken for ours."""
    text = os.environ.get(variable or "") or str(default)
    if not text.isdecimal() or int(text) > 65535:
        raise Failure(f"{variable}: found {text!r}, expected a port from 0 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            raise Failure(f"port {text}: {error.strerror}; set {variable} to another port") from None
        return probe.getsockname()[1]


def seed():
    """The scenario's values, by their key below the prefix."""
    files = sorted(SEED.rglob("*.json"))
    if not files:
        raise Failure(f"found no *.json below {SEED.relative_to(ROOT)}")
    return {path.relative_to(SEED).with_suffix("").as_posix(): path.read_text().rstrip("\n") for path in files}


def environment():
    """The environment without ETCD_*, which etcd and the gateway would use."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}


def start_etcd(processes, folder):
    """Starts a seeded etcd. Returns the gateway's variables, and the command that adds a webhook with its output."""
    port, peers = free_port("ETCD_PORT", 2379), f"http://127.0.0.1:{free_port()}"
    client, data = f"http://127.0.0.1:{port}", folder / "etcd"
    shutil.rmtree(data, ignore_errors=True)
    etcd = [ROOT / "target/tools/bin/etcd", "--name=run", f"--data-dir={data}", "--log-level=warn"]
    etcd += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peers}"]
    etcd += [f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=run={peers}"]
    processes.start("etcd", etcd, environment(), folder / "etcd.log")
    processes.wait_until(lambda: answers(f"{client}/health"), f"etcd healthy (see {folder / 'etcd.log'})")
    for key, value in seed().items():
        body = {"key": base64.b64encode((PREFIX + key).encode()), "value": base64.b64encode(value.encode())}
        body = json.dumps({name: text.decode() for name, text in body.items()}).encode()
        urllib.request.urlopen(f"{client}/v3/kv/put", body, timeout=15).close()
    variables = {"ETCD_HOST": "127.0.0.1", "ETCD_PORT": str(port), "ETCD_PREFIX": PREFIX, "ETCD_NAMESPACE": "default"}
    add = f"""KEY=$(echo -n '{PREFIX}default/webhooks/new_hook' | base64 | tr -d '\\n')
VAL=$(echo -n '{json.dumps(NEW_HOOK, separators=(",", ":"))}' | base64 | tr -d '\\n')
curl -X POST http://localhost:{port}/v3/kv/put \\
  -H "Content-Type: application/json" \\
  -d "{{\\"key\\":\\"${{KEY}}\\",\\"value\\":\\"${{VAL}}\\"}}\""""
    return variables, (add, '"revision"')


def write_files(folder):
    """The same with files instead of etcd."""
    webhooks, connections = folder / "webhooks.json", folder / "connections.json"
    namespaces, named = {}, {}
    for key, value in seed().items():
        namespace, kind, name = key.split("/")
        (namespaces.setdefault(namespace, {}) if kind == "webhooks" else named)[name] = json.loads(value)
    webhooks.write_text(json.dumps({"namespaces": namespaces}, indent=2) + "\n")
    connections.write_text(json.dumps(named, indent=2) + "\n")
    file = webhooks.relative_to(ROOT)
    add = f"""sed -i 's/^    "default": {{$/&\\n      "new_hook": {json.dumps(NEW_HOOK)},/' {file} && head -4 {file}"""
    return {"WEBHOOKS_CONFIG_FILE": str(webhooks), "CONNECTIONS_CONFIG_FILE": str(connections)}, (add, '"new_hook"')


def inspector(port, token):
    """The commands that show that the inspector's page answers, and that its data needs the token."""
    admin = f"http://127.0.0.1:{port}/admin"
    return [
        ("", f"curl -s {admin}/ui/", "<title>Inspector"),
        ("", f"curl -s {admin}/session", '"status":401'),
        ("", f'curl -s -H "Authorization: Bearer {token}" {admin}/session', '"history":true'),
        ("", f'curl -s -H "Authorization: Bearer {token}" "{admin}/events?webhook=test_log&outcome=delivered"', '"key":"default/test_log"'),
    ]


def things_to_try(port, data, add):
    """The commands to try: a comment, the command, and a part of its output."""

    def hook(path, token, body):
        return f"""curl -X POST http://localhost:{port}/webhook/{path} \\
  -H "Authorization: Bearer {token}" \\
  -H "Content-Type: application/json" \\
  -d '{body}'"""

    return [
        ("", hook("test_log", "test_token_123", '{"hello": "world"}'), TAKEN),
        ("", hook("test_save", "test_token_123", '{"save": "this"}'), TAKEN),
        ("# the event is a file now", f"grep -r save {data.relative_to(ROOT)}", '{"save": "this"}'),
        ("", hook("staging/test_log_staging", "staging_token_456", '{"env": "staging"}'), TAKEN),
        ("# refused: the token of another namespace", hook("test_log", "staging_token_456", "{}"), '"status":401'),
        ("# a new webhook, served at once", *add),
        ("", hook("new_hook", "test_token_123", '{"dynamic": true}'), TAKEN),
        ("", f"curl http://localhost:{port}/health", '"status":"healthy"'),
        ("", f"curl http://localhost:{port}/metrics", "# TYPE tower_webhook_requests_total"),
    ]


def documented():
    """The commands of the READMEs that send an event to a webhook."""
    commands = []
    for page in READMES:
        blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        found = re.findall(r"^curl -X POST http://localhost:8000/webhook/(?:.*\\\n)*.*$", "\n".join(blocks), re.MULTILINE)
        if not found:
            raise Failure(f"found no command for a webhook in {page.relative_to(ROOT)}")
        commands += [(page, command) for command in found]
    return commands


def check(processes, port, lines):
    """Compares the commands with the READMEs and runs them. A change may still be on its way: then it tries again."""
    shown = [line.replace(f"localhost:{port}/", "localhost:8000/") for _, line, _ in lines]
    for page, command in documented():
        if command not in shown:
            raise Failure(f"{page.relative_to(ROOT)} has a command that `make run` does not print:\n{command}")
    for _, line, expected in lines:
        printed = ""

        def holds():
            nonlocal printed
            printed = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True).stdout
            return expected in printed

        try:
            processes.wait_until(holds, line)
        except Failure as failure:
            raise Failure(f"{failure}\nexpected {expected}\nprinted {printed[:1000]}") from None
        print(f"{line}\n=> {printed.strip()[:200]}\n", flush=True)


def run(args, processes):
    if not args.gateway.is_file():
        raise Failure(f"found no {args.gateway}; `make run` builds it")
    folder = ROOT / "target/run" / ("check" if args.check else "")
    if args.check:
        shutil.rmtree(folder, ignore_errors=True)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    port = free_port("PORT", 8000)
    variables, add = start_etcd(processes, folder) if args.backend == "etcd" else write_files(folder)
    token = os.environ.get("ADMIN_TOKEN") or secrets.token_urlsafe(16)
    variables.update(CONFIG_BACKEND=args.backend, HOST="127.0.0.1", PORT=str(port), SAVE_TO_DISK_ROOT=str(data))
    variables.update(ADMIN_TOKEN=token, HISTORY_DIR=str(folder / "history"), SPOOL_DIR=str(folder / "spool"))
    log = folder / "gateway.log" if args.check else None
    page = f"Inspector: http://127.0.0.1:{port}/admin/ui/\nIts token: {token}\n"
    print(page, flush=True)
    processes.start("the gateway", [args.gateway], environment() | variables, log)
    try:
        processes.wait_until(lambda: answers(f"http://127.0.0.1:{port}/ready"), "the gateway ready")
        lines = things_to_try(port, data, add)
        if args.check:
            return check(processes, port, lines + inspector(port, token))
    except Failure:
        if log:
            print("the last lines of the gateway's log:", *log.read_text(errors="replace").splitlines()[-30:], sep="\n  ")
        raise
    print(f"\n{page}\nThe gateway runs at http://localhost:{port}. To try it, in another terminal:\n")
    for comment, line, _ in lines:
        print(comment + "\n" * bool(comment) + line + "\n")
    print("Ctrl-C stops it.\n", flush=True)
    while True:
        processes.pause(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["etcd", "file"], default="etcd")
    parser.add_argument("--check", action="store_true", help="run the commands, compare their output, stop")
    parser.add_argument("--gateway", type=Path, default=TARGET / "quick/gateway", help="the executable (default: %(default)s)")
    args = parser.parse_args()

    processes, status = Processes(), 0
    try:
        run(args, processes)
    except Stopped:
        print("stopping", flush=True)
        status = 1 if args.check else 0
    except (Failure, urllib.error.URLError) as failure:
        print(f"run: {failure}", file=sys.stderr, flush=True)
        status = 1
    finally:
        failed = processes.stop_all()
    if "the gateway" in failed and status == 0:
        sys.exit("run: the gateway ended with a status other than 0")
    sys.exit(status)


if __name__ == "__main__":
    main()
