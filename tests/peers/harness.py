"""What every case stands on: the list of cases, free ports, processes with a log, the proxy with a written configuration.

A case is a function that takes a `Lab`. Everything that it starts through the lab is stopped when it ends; what was written
to logs is shown when it failed. With `--direct` the lab wires clients straight to origins: a case that fails there too does
not speak about the proxy.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import traceback
import urllib.error
import urllib.request

CASES = []


def case(promise, *, needs=(), direct=True, down=(None,), up=(None,), seconds=60, full=False):
    """Registers one case for each pair of the protocol that the client speaks (`down`) and that the origin speaks (`up`).

    `needs` names programs; `direct=False` marks what has no meaning without the proxy; `full` runs only with `--full`; no case
    waits longer than `seconds`."""

    def register(body):
        for client in down:
            for server in up:
                CASES.append(Case(body, promise, tuple(needs), direct, client, server, seconds, full))
        return body

    return register


class Case:
    def __init__(self, body, promise, needs, direct, down, up, seconds, full):
        self.body, self.needs, self.direct, self.down, self.up = body, needs, direct, down, up
        self.seconds, self.full = seconds, full
        road = " → ".join(side for side in (down, up) if side)
        self.name = f"{body.__module__.removeprefix('peer_')}: {promise}" + (f" [{road}]" if road else "")

    def runs(self, direct):
        """Directly, a client and an origin meet only if they speak the same protocol; TLS ends at the proxy."""
        spoken = {self.down, self.up} - {None, "clear"}
        return not direct or (self.direct and len(spoken) < 2 and "tls" not in spoken)

    def run(self, lab):
        sides = {name: side for name, side in (("down", self.down), ("up", self.up)) if side}
        self.body(lab, **sides)


class Lab:
    """The world of one case: a folder, processes, origins, proxies; all gone when it closes."""

    def __init__(self, *, direct=False, binary=None):
        self.direct, self.binary = direct, binary
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=ROOM))
        self.stack = contextlib.ExitStack()
        self.logs, self.proxies, self.origins = [], [], []
        # How requests may end, by the access log. A case in which one has to fail names its flags.
        self.flags = {"ok"}

    def path(self, name):
        return self.folder / name

    def write(self, name, content):
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def spawn(self, name, argv, *, ports=()):
        """Starts a server and waits until each of its ports answers."""
        log = self.path(f"{name}-{len(self.logs)}.log")
        self.logs.append(log)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=PLAIN,
                cwd=self.folder,
            )
        self.stack.callback(end, process)
        for port in ports:
            self.listens(name, process, port)
        return process

    def listens(self, name, process, port, timeout=10):
        wait(lambda: reachable(port) or process.poll() is not None, f"{name} listens on {port}", timeout)
        check(process.poll() is None, f"{name} ended with {process.returncode} before it listened")

    def run(self, *argv, timeout=20, input=None, code=0):
        """Runs a client to its end. `code=None` lets any exit code pass."""
        done = subprocess.run([str(word) for word in argv], input=input, capture_output=True, timeout=timeout, cwd=self.folder)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if code is not None and done.returncode != code:
            raise AssertionError(f"{shown(argv)}\nended with {done.returncode}\n{out[-2000:]}\n{err[-2000:]}")
        return Done(done.returncode, out, err, done.stdout)

    def proxy(self, listeners, upstreams=(), **rest):
        """Starts a proxy with these listeners (`name` and `mode` are needed, `port` is chosen) and upstreams."""
        assert not self.direct, "this case has no direct form: mark it direct=False"
        proxy = Proxy(self, listeners, list(upstreams), rest)
        self.proxies.append(proxy)
        self.stack.callback(proxy.stop)
        return proxy

    def front(self, port, *, up=None, upstream=None, **listener):
        """The port where a client reaches the origin at `port`: a proxy's, or the origin's own with `--direct`."""
        if self.direct:
            return port
        proxy = self.proxy([{"name": "in", "mode": "inbound", "upstream": "app", **listener}],
                           [{"name": "app", "addresses": [f"127.0.0.1:{port}"], "protocol": PROTOCOL[up], **(upstream or {})}])
        return proxy.port("in")

    def close(self, failed):
        """Stops everything; returns what a reader needs to see after a failure."""
        trouble = []
        try:
            self.stack.close()
        except AssertionError as error:
            trouble.append(f"afterwards: {error}")
        except Exception:
            trouble.append(traceback.format_exc())
        for proxy in () if failed else self.proxies:
            lines = [line for line in proxy.requests() if line["flag"] not in self.flags]
            if lines:
                trouble.append(f"afterwards: {len(lines)} lines of the access log have other flags than {sorted(self.flags)}, the first: {lines[0]}")
        for origin in self.origins:
            for error in origin.errors:
                trouble.append(f"an origin failed: {error}")
        for log in self.logs:
            text = log.read_text(errors="replace")
            if "panicked at" in text:
                trouble.append(f"a thread panicked, see {log.name}")
        if failed or trouble:
            for log in self.logs:
                text = log.read_text(errors="replace").strip()
                if text:
                    trouble.append(f"--- the end of {log.name}\n{text[-LOG_SHOWN:]}")
        shutil.rmtree(self.folder, ignore_errors=True)
        return trouble


class Done:
    """What a client program left: exit code, both outputs as text, stdout also as bytes."""

    def __init__(self, code, out, err, raw):
        self.code, self.out, self.err, self.raw = code, out, err, raw


class Proxy:
    """One running proxy."""

    def __init__(self, lab, listeners, upstreams, rest):
        self.lab = lab
        self.ports = {}
        for listener in listeners:
            port = self.ports[listener["name"]] = listener.pop("port", None) or free_port()
            listener.setdefault("address", f"127.0.0.1:{port}")
        self.admin, self.status = free_port(), free_port()
        config = {
            "version": 1,
            "role": "standalone",
            "workers": 2,
            "admin": {"address": f"127.0.0.1:{self.admin}"},
            "status": {"address": f"127.0.0.1:{self.status}"},
            "listeners": listeners,
            "upstreams": upstreams,
            "drain": {"timeout": "3s"},
            "telemetry": {"log": "info", "accessLog": {"format": "json", "to": "stdout"}},
            **rest,
        }
        # JSON is YAML; nothing more than the standard library is needed to write it.
        self.config = lab.write(f"proxy-{self.status}.yaml", json.dumps(config, indent=1))
        self.process = lab.spawn("proxy", [lab.binary, "run", "--config", self.config])
        self.log = lab.logs[-1]
        wait(lambda: self.process.poll() is not None or self.ready(), "the proxy is ready")
        check(self.process.poll() is None, f"the proxy ended with {self.process.returncode} at its start; its configuration:\n{self.config.read_text()}")

    def port(self, name):
        return self.ports[name]

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/ready", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/metrics", timeout=2) as answer:
            return answer.read().decode()

    def metric(self, name):
        """The sum of one family's samples; a family that nothing has used yet may have none."""
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", self.metrics(), re.MULTILINE)
        return sum(float(value) for value in found)

    def requests(self):
        """The lines of its access log."""
        lines = (json.loads(line) for line in self.log.read_text(errors="replace").splitlines() if line.startswith("{"))
        return [line for line in lines if "flag" in line]

    def settle(self):
        """Nothing stays in flight once the clients are gone."""
        for name in IN_FLIGHT:
            wait(lambda: self.metric(name) == 0, f"{name} returns to 0", timeout=5)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Ends the proxy as an orchestrator does; it must go in time and with exit code 0."""
        if self.process.poll() is None:
            try:
                self.settle()
            finally:
                self.terminate()
                code = self.ended(8)
            check(code == 0, f"the proxy left with {code} after SIGTERM")

    def ended(self, timeout):
        """The exit code; a proxy that does not leave in time fails the case."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the proxy still runs {timeout} s after SIGTERM") from None


def check(truth, promise):
    if not truth:
        raise AssertionError(promise)


def equal(seen, expected, what):
    if seen != expected:
        raise AssertionError(f"{what}\n  seen:     {short(seen)}\n  expected: {short(expected)}")


def wait(truth, what, timeout=10):
    """Polls until `truth()` holds; returns what it returned."""
    deadline = time.monotonic() + timeout
    while True:
        found = truth()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


def free_port():
    """A port below the ephemeral range, so that no outgoing connection takes it before the server does."""
    for _ in range(200):
        port = next(_ports)
        with contextlib.closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port between 20000 and 30000")


def _port_numbers():
    """Each once before any comes again: two listeners of one proxy must not be given the same."""
    while True:
        yield from random.sample(range(20000, 30000), 10000)


def reachable(port):
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process):
    """Stops one process of ours, kindly first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(3)


def short(value, limit=600):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def shown(argv):
    return " ".join(str(word) for word in argv)


_ports = _port_numbers()
# Every file of this run lies below; main removes it.
ROOM = pathlib.Path(tempfile.mkdtemp(prefix="spanmesh-peers-"))

# The proxy reads these as configuration.
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("SPANMESH_", "OTEL_"))}
IN_FLIGHT = ("spanmesh_proxy_requests_in_flight", "spanmesh_proxy_upstream_requests_in_flight")
PROTOCOL = {None: "auto", "h1": "http1", "h2": "http2"}
# Enough for the requests that led to a failure, little enough to read.
LOG_SHOWN = 4000
