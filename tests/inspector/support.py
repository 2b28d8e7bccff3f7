"""A real gateway, a target of its own, and a browser, for the tests of the inspector."""

import contextlib
import datetime
import functools
import hashlib
import http.client
import http.server
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/tools"
FILES = ROOT / "src/admin/ui"
# The screenshots of the run, the gateway's log and its directories.
KEPT = ROOT / "target/inspector"
BUILT = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
GATEWAY = Path(os.environ.get("GATEWAY", BUILT / "debug/gateway"))
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium"

SENDER = "sender-token-of-the-test"
ADMIN, READER, SHOP = "admin-token-of-the-test", "reading-token-of-the-test", "token-of-the-namespace-shop"
PATIENCE = 15  # seconds, for a page and for the gateway


def free_port():
    """A free port below those that the system gives to clients, so that no client takes it first."""
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("found no free port from 20000 to 32000")


def wait_until(true, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: did not happen within {seconds} s")
        time.sleep(0.02)


class Target:
    """A server that events are delivered to. It answers with `status`, and keeps what it got at the path `/`."""

    def __init__(self):
        target = self
        self.status, self.got = 503, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path == "/":
                    target.got.append((dict(self.headers), body))
                answer = b"taken" if target.status < 400 else b"<b>no healthy upstream</b>"
                self.send_response(target.status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def webhooks(target):
    """The configuration: a webhook whose target fails, and one for each type of body."""
    guard = {"authorization": f"Bearer {SENDER}"}
    url = f"http://127.0.0.1:{target.port}/"
    soon = {"enabled": True, "max_attempts": 3, "initial_delay": 0.1, "max_delay": 0.2, "backoff_multiplier": 1}
    late = {"enabled": True, "max_attempts": 5, "initial_delay": 60, "max_delay": 60}
    to_target = {"module": "http_webhook", "module-config": {"url": url}, "ack": "accepted", **guard}
    # Tried again at a time that no test chooses, so at a path of its own.
    to_target_late = {**to_target, "module-config": {"url": f"{url}late"}}
    return {
        "namespaces": {
            "default": {
                "plain": {"module": "discard", "data_type": "json", **guard},
                "blob": {"module": "discard", "data_type": "blob", **guard},
                "open": {"module": "discard", "data_type": "json"},
                "broken": {"module": "discard", "data_type": "json", "authorization": "Bearer {$NOT_SET_ANYWHERE}"},
            },
            "shop": {
                "orders": {"data_type": "json", "retry": soon, **to_target},
                "later": {"data_type": "json", "retry": late, **to_target_late},
            },
        }
    }


class Gateway:
    """The program `gateway` with files, and directories below target/inspector/."""

    def __init__(self, name, target, history=True, queue=True, start=True):
        self.folder = KEPT / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.history = self.folder / "history"
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        config = webhooks(target)
        if not queue:
            config["namespaces"].pop("shop")
        (self.folder / "webhooks.json").write_text(json.dumps(config))
        digest = lambda token: hashlib.sha256(token.encode()).hexdigest()
        tokens = [
            {"name": "reader", "sha256": digest(READER), "rights": ["read"]},
            {"name": "shop-team", "sha256": digest(SHOP), "namespaces": ["shop"], "rights": ["read", "write"]},
        ]
        (self.folder / "tokens.json").write_text(json.dumps({"tokens": tokens}))
        self.variables = {
            "CONFIG_BACKEND": "file",
            "WEBHOOKS_CONFIG_FILE": str(self.folder / "webhooks.json"),
            "CONNECTIONS_CONFIG_FILE": str(self.folder / "connections.json"),
            "SAVE_TO_DISK_ROOT": str(self.folder / "data"),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "ADMIN_TOKEN": ADMIN,
            "ADMIN_TOKENS_FILE": str(self.folder / "tokens.json"),
            "EGRESS_ALLOW": "127.0.0.0/8",
            "RUST_LOG": "info",
        }
        (self.folder / "data").mkdir()
        if queue:
            self.variables["SPOOL_DIR"] = str(self.folder / "spool")
            (self.folder / "spool").mkdir()
        if history:
            self.variables["HISTORY_DIR"] = str(self.history)
            self.history.mkdir(mode=0o700)
        if start:
            self.start()

    def start(self):
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with open(self.folder / "gateway.log", "ab") as log:
            self.process = subprocess.Popen(
                [GATEWAY], env=inherited | self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self.is_ready, f"the gateway is ready (see {self.folder / 'gateway.log'})", 60)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended with {self.process.returncode}: see {self.folder / 'gateway.log'}")
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{self.address}/ready", timeout=2).status == 200

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def page(self):
        return f"{self.address}/admin/ui/"

    def send(self, webhook, body, token=SENDER, content_type="application/json"):
        """Sends an event. Returns the status of the answer."""
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
        sender = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": content_type}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.sent = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        sender.request("POST", f"/webhook/{webhook}", body, headers)
        status = sender.getresponse().status
        sender.close()
        return status

    def ask(self, path, token=ADMIN):
        """The answer to a GET of the admin API."""
        request = urllib.request.Request(f"{self.address}/admin/{path}", headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def event(self, **query):
        """The newest event that fits the query, once the history has one. With `since=gateway.sent` it is the last one that was sent."""
        query = urllib.parse.urlencode({**query, "limit": 1})
        return wait_until(lambda: self.ask(f"events?{query}")["events"], f"an event with {query}")[0]


class Browser:
    """Chromium. Each page collects its faults: errors, and requests to another host."""

    def __init__(self):
        if not shutil.which(CHROMIUM):
            raise SystemExit("found no chromium: install it (Debian: apt-get install chromium), or set CHROMIUM")
        self.playwright = sync_playwright().start()
        # Chromium's sandbox needs user namespaces, which a container may not have; the pages are the project's own.
        self.chromium = self.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    def open(self, gateway, hash="", token=ADMIN, **options):
        """A page of a new browser session, signed in unless `token` is None."""
        session = self.chromium.new_context(
            **{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", "timezone_id": "UTC", "accept_downloads": True, **options}
        )
        session.set_default_timeout(PATIENCE * 1000)
        page = session.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(f"error: {error}"))
        page.on("console", lambda line: page.faults.append(f"console: {line.text}") if line.type == "error" and "status of" not in line.text and "net::ERR" not in line.text else None)
        page.on("request", lambda request: None if request.url.startswith((gateway.address, "blob:")) else page.faults.append(f"foreign: {request.url}"))
        page.add_init_script("document.addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective + ' ' + e.blockedURI))")
        page.goto(gateway.page + hash)
        if token:
            page.get_by_label("Admin token").fill(token)
            page.get_by_role("button", name="Sign in").click()
            page.locator("#side nav").wait_for()
        return page

    def stop(self):
        self.chromium.close()
        self.playwright.stop()


def settle(page):
    """Waits until the screen is drawn. (Playwright's own wait for a function needs `eval`, which the policy refuses.)"""
    page.wait_for_timeout(250)
    wait_until(lambda: page.evaluate("!!document.querySelector('h1') && !document.querySelector('[aria-busy], .skeleton')"), "the screen is drawn")
    page.wait_for_timeout(50)


def shot(page, name, full=False):
    """Keeps a screenshot below target/inspector/."""
    KEPT.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=KEPT / f"{name}.png", full_page=full)


def close(page):
    """Ends the page's session, and fails if the page had a fault."""
    faults = list(page.faults)
    page.context.close()
    assert not faults, "the page had faults:\n" + "\n".join(faults)


class Bench:
    """One target, one gateway and one browser for all tests, each made when a test first needs it."""

    @functools.cached_property
    def target(self):
        return Target()

    @functools.cached_property
    def gateway(self):
        return Gateway("gateway", self.target)

    @functools.cached_property
    def browser(self):
        return Browser()

    def stop(self):
        for name in ("browser", "gateway", "target"):
            if name in vars(self):
                vars(self)[name].stop()


bench = Bench()
