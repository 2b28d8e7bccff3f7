#!/usr/bin/env python3
"""Compares the gateway with baselines under load: CPU for each request, requests/s, latency, memory.

`make load` builds the programs and calls this. Each round runs every case once, one after the other, each with its own
server and wrk as the client. benches/README.md explains the table. Everything this writes is below target/load, and is
removed at the end.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from fcntl import F_SETPIPE_SZ, fcntl
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
FLOOR, GATEWAY = TARGET / "release/examples/load_floor", TARGET / "release/gateway"
ANSWER = {"message": "200 OK"}
PATH = "/webhook/load"
TOKEN = "test_token_123"
PASSWORD = "s3cret-password"
# Of that password.
ARGON2ID = "$argon2id$v=19$m=65536,t=3,p=4$ajWUR+o+MypLTjrX94uCuQ$AmmpoHnNGP79RNNy+zTm+XHbAvZYBTbtydvJXIR/ScE"
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


class Failure(Exception):
    """Ends the run with status 1; its text is for the user."""


class Stopped(Exception):
    """The user asked to stop."""


def say(text=""):
    print(text, flush=True)


# --- the cases ---------------------------------------------------------------------------------------------------


@dataclass
class Program:
    argv: list
    env: dict
    ready: str = "/"


@dataclass
class Case:
    name: str
    size: int
    # (directory, port) → Program. It may write its configuration into the directory.
    program: object
    status: int = 200
    # event → the header fields that let it in.
    credentials: object = lambda event: {"Authorization": f"Bearer {TOKEN}"}
    spool: bool = False
    on_disk: bool = False

    @property
    def label(self):
        return f"{self.name}, {self.size} B" if self.size < 1024 else f"{self.name}, {self.size // 1024} KiB"

    @property
    def is_floor(self):
        """Whether the other cases of the same size are compared with this one."""
        return self.name == "floor"


def cases():
    for size in (250, 4096):
        yield Case("floor", size, floor())
        yield Case("floor, one runtime a core", size, floor("--per-core"))
        yield Case("floor, synced", size, floor("--synced", on_disk=True), on_disk=True)
        yield Case("nginx", size, nginx)
        yield Case("gateway discard", size, gateway(webhook("discard")))
        if size == 250:
            yield Case("gateway discard, one of 1,000,000", size, gateway(webhook("discard"), others=999_999))
        signed = gateway(guarded(signature={"preset": "github", "secrets": [TOKEN]}))
        yield Case("gateway signature", size, signed, credentials=signature)
        yield Case("gateway history", size, gateway(webhook("discard"), history=True))
        accepted = gateway(webhook("discard", ack="accepted"), spool=True)
        yield Case("gateway accepted", size, accepted, status=202, spool=True)
        yield Case("gateway accepted, target silent", size, gateway(silent(), spool=True), status=202)
        if size == 250:
            yield Case("gateway log", size, gateway(webhook("log")))
            by_password = gateway(guarded(basic_auth={"users": {"load": ARGON2ID}}))
            yield Case("gateway basic_auth", size, by_password, credentials=password)
            wrong = {"Authorization": "Bearer wrong"}
            yield Case("gateway 401", size, gateway(webhook("discard")), status=401, credentials=lambda event: wrong)


def floor(*flags, on_disk=False):
    return lambda directory, port: Program([FLOOR, *flags, *([directory / "bodies"] if on_disk else []), port], {})


def webhook(module, **more):
    return {"data_type": "json", "module": module, "authorization": f"Bearer {TOKEN}", **more}


def guarded(**guard):
    return {"data_type": "json", "module": "discard", **guard}


def silent():
    """A target that accepts connections and never answers: accepted events stay in the spool."""
    return webhook("http_webhook", ack="accepted", **{"module-config": {"url": f"http://127.0.0.1:{silent_port()}/"}})


@cache
def silent_port():
    global listener
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    return listener.getsockname()[1]


def gateway(hook, spool=False, history=False, others=0):
    def program(directory, port):
        webhooks = directory / "webhooks.json"
        hooks = {f"other-{number}": hook for number in range(others)} | {PATH.rpartition("/")[2]: hook}
        webhooks.write_text(json.dumps(hooks))
        if others:
            # The gateway reads a new file twice, since another change within the clock's resolution would not show.
            time.sleep(3)
        env = {
            "CONFIG_BACKEND": "file",
            "WEBHOOKS_CONFIG_FILE": str(webhooks),
            "CONNECTIONS_CONFIG_FILE": str(directory / "connections.json"),
            "SAVE_TO_DISK_ROOT": str(directory / "data"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
        }
        if history:
            (directory / "history").mkdir()
            env |= {"HISTORY_DIR": str(directory / "history")}
        if spool:
            (directory / "spool").mkdir()
            env |= {
                "SPOOL_DIR": str(directory / "spool"),
                "SPOOL_MAX_BYTES": str(16 << 30),
                "EGRESS_ALLOW": "127.0.0.0/8",
                "SHUTDOWN_GRACE_SECONDS": "1",
            }
        return Program([GATEWAY], env, ready="/ready")

    return program


def nginx(directory, port):
    program, module = find_nginx()
    config = directory / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"  {kind}_temp_path {directory / kind};" for kind in kinds)
    # The user nobody cannot write below these directories.
    user = "user root;" if os.geteuid() == 0 else ""
    # keepalive_requests: the other servers have no limit.
    config.write_text(f"""load_module {module};
{user}
daemon off;
worker_processes 2;
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
{temporary}
  access_log off;
  default_type application/json;
  keepalive_requests 1000000000;
  client_body_buffer_size 64k;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      echo_read_request_body;
      echo -n '{json.dumps(ANSWER, separators=(",", ":"))}';
    }}
  }}
}}
""")
    return Program([program, "-p", directory, "-c", config, "-e", "stderr"], {})


def find_nginx():
    """nginx's program and its echo module, or None."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        return None
    module = Path(program).resolve().parents[1] / "lib/nginx/modules/ngx_http_echo_module.so"
    return (program, module) if module.is_file() else None


# --- what is sent ------------------------------------------------------------------------------------------------


def event(size):
    """An event as a shop would send it, of exactly `size` bytes."""
    order = {"id": "ord_7Hq2", "amount": 4990, "currency": "eur", "email": "ada@example.org", "items": [], "note": ""}
    value = {"id": "evt_1QxK8s", "type": "order.paid", "created": 1767225600, "livemode": True, "data": order}

    def text():
        return json.dumps(value, separators=(",", ":"))

    while True:
        number = len(order["items"]) + 1
        order["items"].append({"sku": f"B-{4710 + number}", "name": "coffee, ground", "count": number, "price": 8.5})
        if len(text()) > size:
            order["items"].pop()
            break
    missing = size - len(text())
    order["note"] = ("please ring twice; " * (missing // 19 + 1))[:missing]
    if len(text()) != size:
        raise Failure(f"cannot make an event of exactly {size} bytes")
    return text()


def headers(case):
    return {"Content-Type": "application/json", **case.credentials(event(case.size))}


def signature(event):
    """As GitHub signs."""
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(TOKEN.encode(), event.encode(), hashlib.sha256).hexdigest()}


def password(event):
    return {"Authorization": "Basic " + base64.b64encode(f"load:{PASSWORD}".encode()).decode()}


def wrk_script(case, directory):
    fields = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers(case).items())
    path = directory / "post.lua"
    path.write_text(f"""wrk.method = "POST"
wrk.body = [==[{event(case.size)}]==]
{fields}
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("load: %d %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
""")
    return path


def find_wrk():
    if shutil.which("wrk") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise Failure("found no wrk: apt-get install wrk")
        say("installing wrk")
        install = "apt-get install -y -qq --no-install-recommends wrk"
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quiet = {"env": env, "shell": True, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        # The first install fails where the package lists are old or missing.
        if subprocess.run(f"{install} || (apt-get update -qq && {install})", **quiet).returncode != 0:
            raise Failure("cannot install wrk: apt-get install wrk")
    return shutil.which("wrk")


# --- processes ---------------------------------------------------------------------------------------------------


class Processes:
    """The child processes. Each has its own session, so that Ctrl-C reaches only this script, and so that all processes of
    a server can be found."""

    def __init__(self):
        self.running = []
        self.stop_asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask_stop)

    def _ask_stop(self, *_):
        self.stop_asked = True

    def start(self, argv, env, **streams):
        # The caller's environment must not configure a server.
        env = {"PATH": os.environ.get("PATH", ""), **env}
        argv = [str(argument) for argument in argv]
        child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **streams)
        self.running.append(child)
        return child

    def pause(self, seconds=0.02):
        """Every wait calls this: it raises when the user asks to stop."""
        time.sleep(seconds)
        if self.stop_asked:
            raise Stopped

    def output(self, argv):
        """Runs a program to its end and returns what it printed."""
        child = self.start(argv, {}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while child.poll() is None:
            self.pause()
        self.running.remove(child)
        with child.stdout as stream:
            text = stream.read().decode(errors="replace")
        if child.returncode != 0:
            raise Failure(f"{argv[0]} ended with status {child.returncode}:\n{text}")
        return text

    def stop(self, child, seconds=20):
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        self.running.remove(child)

    def stop_all(self):
        for child in list(reversed(self.running)):
            self.stop(child, seconds=2)


class Server:
    """A server that runs and answers."""

    def __init__(self, processes, case, directory):
        self.processes, self.case = processes, case
        self.port = free_port()
        program = case.program(directory, self.port)
        self.log = directory / "log"
        with open(self.log, "wb") as log:
            self.child = processes.start(program.argv, program.env, stdout=subprocess.PIPE, stderr=log)
        threading.Thread(target=drain, args=[self.child.stdout], daemon=True).start()
        self.wait_until(lambda: self.call("GET", program.ready)[0] == 200, "an answer")

    def wait_until(self, true, what, seconds=60, every=0.02):
        end = time.monotonic() + seconds
        while not true():
            self.check_alive()
            if time.monotonic() > end:
                raise Failure(f"{self.case.label}: {what}: did not happen within {seconds} s")
            self.processes.pause(every)

    def check_alive(self):
        if self.child.poll() is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise Failure(f"{self.case.label}: ended with status {self.child.returncode}: " + "\n".join(last))

    def call(self, method, path, body=None, fields=None):
        """Sends one request. Returns the status and the body, or (None, None) without an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body, fields or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None, None
        finally:
            connection.close()

    def check(self):
        """Checks that the answer is the one that the case measures."""
        status, body = self.call("POST", PATH, event(self.case.size), headers(self.case))
        if status != self.case.status or (status == 200 and json.loads(body) != ANSWER):
            raise Failure(f"{self.case.label}: found {status} {body}, expected {self.case.status}")

    def cpu(self):
        """Seconds of CPU that all threads have used."""
        self.check_alive()
        return sum(int(field) for stat in self._stats() for field in stat[11:13]) / TICKS

    def memory(self):
        """Resident memory now and at its peak, in MiB."""
        now = peak = 0
        for stat in self._stats():
            for line in Path(f"/proc/{stat.pid}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                now += int(value.split()[0]) if name == "VmRSS" else 0
                peak += int(value.split()[0]) if name == "VmHWM" else 0
        return now / 1024, peak / 1024

    def _stats(self):
        """The fields of /proc/PID/stat, from the state on, of each process of the session."""
        found = [stat for pid in os.listdir("/proc") if pid.isdecimal() and (stat := Stat.read(pid))]
        return [stat for stat in found if int(stat[3]) == self.child.pid]

    def metric(self, name):
        """The sum of a metric over all labels."""
        _, text = self.call("GET", "/metrics")
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in (text or b"").decode().splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        ]
        if not values:
            raise Failure(f"{self.case.label}: /metrics has no {name}")
        return sum(values)

    def drained(self):
        """Waits until all accepted events are delivered."""
        self.wait_until(lambda: self.metric("tower_webhook_queue_waiting") == 0, "an empty spool", 120, every=0.1)

    def stop(self):
        self.processes.stop(self.child)


class Stat(list):
    """The fields of /proc/PID/stat after the name, which may contain any characters."""

    @classmethod
    def read(cls, pid):
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        stat = cls(text.rpartition(")")[2].split())
        stat.pid = pid
        return stat


def drain(stream):
    """Reads what a server prints as fast as possible: the module `log` waits for its reader."""
    fcntl(stream, F_SETPIPE_SZ, MIB)
    with stream:
        while os.read(stream.fileno(), MIB):
            pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- one measurement ---------------------------------------------------------------------------------------------


@dataclass
class Run:
    """The figures of one case in one round. Times in seconds, memory in MiB."""

    rate: float
    p50: float
    p99: float
    cpu: float
    rss: float
    peak: float
    # The client's share of one core.
    client: float
    remark: str = ""
    # Only with a spool: CPU until everything is delivered, and requests for each sync.
    cpu_done: float = 0
    per_sync: float = 0


def measure(processes, case, options, scratch):
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        directory = Path(directory)
        server = Server(processes, case, directory)
        try:
            server.check()
            return load(server, wrk_script(case, directory), options)
        finally:
            server.stop()


def load(server, script, options):
    def wrk(seconds):
        url = f"http://127.0.0.1:{server.port}{PATH}"
        text = server.processes.output(
            [options.wrk, "-t1", f"-c{options.connections}", f"-d{seconds}s", "-s", script, url]
        )
        lines = [line for line in text.splitlines() if line.startswith("load: ")]
        if not lines:
            raise Failure(f"wrk printed no result:\n{text}")
        return [int(field) for field in lines[0].split()[1:]]

    spool = server.case.spool
    wrk(1)
    if spool:
        server.drained()
        events, syncs = spool_counters(server)
    cpu, client = server.cpu(), children_cpu()
    requests, duration, p50, p99, refused, errors = wrk(options.seconds)
    cpu_used, client_used = server.cpu() - cpu, children_cpu() - client
    if requests == 0:
        raise Failure(f"{server.case.label}: no request was answered")
    run = Run(requests / duration * 1e6, p50 / 1e6, p99 / 1e6, cpu_used / requests, *server.memory(),
              client_used / duration * 1e6)
    if spool:
        server.drained()
        run.cpu_done = (server.cpu() - cpu) / requests
        events_now, syncs_now = spool_counters(server)
        run.per_sync = (events_now - events) / max(syncs_now - syncs, 1)
        run.rss, run.peak = server.memory()
    expected = requests if server.case.status >= 400 else 0
    if refused != expected:
        run.remark = f"{refused} of {requests} answers were not 2xx, and {expected} should have been"
    elif errors:
        run.remark = f"{errors} errors of sockets or timeouts in {requests} requests"
    return run


def children_cpu():
    """Seconds of CPU of the children that have ended: the difference between two calls is wrk's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def spool_counters(server):
    return server.metric("tower_webhook_queue_events_total"), server.metric("tower_webhook_queue_syncs_total")


class Machine:
    """Other activity on the machine while a server was loaded, in shares of the CPU time."""

    def __init__(self):
        self.begin = self._read()

    @staticmethod
    def _read():
        with open("/proc/stat") as file:
            return [int(field) / TICKS for field in file.readline().split()[1:9]]

    def told(self, ours):
        user, nice, system, idle, iowait, irq, softirq, steal = (
            after - before for before, after in zip(self.begin, self._read())
        )
        total = user + nice + system + idle + iowait + irq + softirq + steal
        others = max(user + nice + system - ours, 0)
        return f"other processes took {others / total:.0%} of the CPU time, the hypervisor {steal / total:.0%}"


# --- the table ---------------------------------------------------------------------------------------------------


def ratio(values, floors):
    """The median of the ratios within each round, with the least and the greatest."""
    ratios = [value / below for value, below in zip(values, floors)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def table(runs):
    """`runs`: the runs of each case, one for each round."""
    floors = {case.size: rounds for case, rounds in runs if case.is_floor}
    head = ["case", "CPU µs/request", "× floor", "requests/s", "× floor", "p50 ms", "p99 ms", "RSS MiB", "peak MiB",
            "wrk CPU"]
    rows = []
    for case, rounds in runs:
        below = floors[case.size]

        def mid(name):
            return median(getattr(run, name) for run in rounds)

        def against(name):
            return ratio([getattr(run, name) for run in rounds], [getattr(run, name) for run in below])

        rows.append([
            case.label,
            f"{mid('cpu') * 1e6:.1f}",
            "1" if case.is_floor else against("cpu"),
            f"{mid('rate'):.0f}",
            "1" if case.is_floor else against("rate"),
            f"{mid('p50') * 1e3:.2f}",
            f"{mid('p99') * 1e3:.2f}",
            f"{mid('rss'):.1f}",
            f"{mid('peak'):.1f}",
            f"{mid('client'):.0%}",
        ])
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells):
        first, *rest = (cell.ljust(width) if not at else cell.rjust(width)
                        for at, (cell, width) in enumerate(zip(cells, widths)))
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * width if not at else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def about_spools(runs):
    floors = {case.size: rounds for case, rounds in runs if case.is_floor}
    for case, rounds in runs:
        if case.spool:
            done = [run.cpu_done for run in rounds]
            times = ratio(done, [run.cpu for run in floors[case.size]])
            per_sync = median(run.per_sync for run in rounds)
            yield (f"{case.label}, accept → deliver → done: {median(done) * 1e6:.1f} µs of CPU/request, "
                   f"× {times}; {per_sync:.1f} requests/fsync")


def about_machine(options):
    def first(path, name):
        lines = Path(path).read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")

    def told(*argv):
        try:
            return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    memory = int(first("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    virtual = ", virtual" if " hypervisor" in first("/proc/cpuinfo", "flags") else ""
    yield (f"Machine: {first('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores{virtual}, {memory:.0f} GiB, "
           f"{platform.system()} {platform.release()} {platform.machine()}.")
    commit = told("git", "rev-parse", "--short=12", "HEAD") or "unknown"
    dirty = ", with changes that are not committed" if told("git", "status", "--porcelain") else ""
    yield f"Commit: {commit}{dirty}; {told('rustc', '--version')}."
    yield (f"Rounds: {options.rounds} of {options.seconds} s for each case; wrk -t1 -c{options.connections} on the same "
           "machine. Medians over the rounds; × with the least and the most.")


# --- all together ------------------------------------------------------------------------------------------------


def file_system(path):
    """The type of the file system that contains `path`."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(len(mount[1]), mount[2]) for mount in mounts if path.is_relative_to(mount[1])]
    return max(holding)[1]


def why_not(processes, case, scratch):
    """Runs a case's server once. Returns the reason if the case cannot run here and is left out."""
    if case.program is nginx and not find_nginx():
        return "found no nginx with the echo module (Debian: nginx, libnginx-mod-http-echo)"
    if (case.spool or case.on_disk) and file_system(scratch) in ("tmpfs", "ramfs"):
        return f"a spool in memory proves nothing; {TARGET} is not on a disk"
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        try:
            server = Server(processes, case, Path(directory))
        except Failure as failure:
            if case.spool and "SPOOL_DIR" in str(failure):
                return str(failure).splitlines()[-1].partition("gateway: ")[2] or "the gateway has no spool"
            raise
        try:
            server.check()
        finally:
            server.stop()
    return None


def run(options, processes):
    for program in (FLOOR, GATEWAY):
        if not program.is_file():
            raise Failure(f"found no {program}; `make load` builds it")
    options.wrk = find_wrk()
    (TARGET / "load").mkdir(parents=True, exist_ok=True)
    about = list(about_machine(options))
    with tempfile.TemporaryDirectory(dir=TARGET / "load") as scratch:
        scratch = Path(scratch).resolve()
        runs = []
        for case in cases():
            if case.is_floor or re.search(options.only, case.label):
                if reason := why_not(processes, case, scratch):
                    say(f"{case.label}: left out: {reason}")
                else:
                    runs.append((case, []))
        machine, ours = Machine(), time.process_time() + children_cpu()
        for number in range(options.rounds):
            # Alternately forwards and backwards, so that no case always follows the same one.
            for case, rounds in runs if number % 2 == 0 else reversed(runs):
                result = measure(processes, case, options, scratch)
                rounds.append(result)
                remark = f"  !! {result.remark}" if result.remark else ""
                say(f"{number + 1}/{options.rounds}  {case.label:<33} {result.cpu * 1e6:6.1f} µs {result.rate:8.0f}/s"
                    + remark)
        noise = machine.told(time.process_time() + children_cpu() - ours)
    say()
    say(table(runs))
    say()
    for text in [*about_spools(runs), *about, f"Meanwhile {noise}."]:
        say(text)
    remarks = [f"{case.label}: {result.remark}" for case, rounds in runs for result in rounds if result.remark]
    if remarks:
        raise Failure("some answers were not the expected ones:\n" + "\n".join(remarks))


def at_least_one(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of at least 1")
    return int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--seconds", type=at_least_one, default=5, help="duration of the load, for each case in each round")
    parser.add_argument("--connections", type=at_least_one, default=64)
    parser.add_argument("--only", default="", metavar="PATTERN", help="the floors, and the cases whose names match this regular expression")
    options = parser.parse_args()

    processes = Processes()
    status = 0
    try:
        run(options, processes)
    except Stopped:
        say("stopping")
        status = 1
    except Failure as failure:
        print(f"load: {failure}", file=sys.stderr, flush=True)
        status = 1
    finally:
        processes.stop_all()
    sys.exit(status)


if __name__ == "__main__":
    main()
