"""What a collector that is dead or hangs costs the application, beside one that takes everything: `benches/run --collector`.

All requests are sampled and come at a fixed rate. A run has two halves: an undisturbed one for latency and memory, and one under
`perf record`, which notes each system call of the worker and each time it leaves its core. From one epoll_wait to the next the
worker's runtime polls tasks, of all connections that have something: no poll is longer than such a turn, and none is shorter than
the longest stretch in it from one end of a system call to the next. What other programs had of the core is taken off."""

import http.server
import os
import platform
import re
import socketserver
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import measure
import report
from products import Missing, Spanmesh, free_ports
from works import WORKS

KINDS = ("healthy", "dead", "hanging")
# Of the memory for spans that wait: small enough to be full early in a run.
QUEUE = 2
LONG = 1.0  # milliseconds of a poll
ROUNDS = 3
BOUNDS = (0.05, 0.1, 0.25, 0.5, LONG, 2.0, float("inf"))
# Shares and MiB that pairs differ by without a reason.
CALLS, MEMORY = 0.02, 1.5
# epoll_wait and epoll_pwait.
WAITS = {"x86_64": {232, 281}, "aarch64": {22}}


class Traced(Spanmesh):
    """The example's sidecar, whose spans go to a collector."""

    def command(self, *words):
        command = super().command(*words)
        path = Path(command[-1])
        text, count = re.subn(r"    file: \{.*\}\n", f"    otlpHttp: {{endpoint: 'http://127.0.0.1:{self.collector}'}}\n"
                              f"    delivery: {{queue: {QUEUE}Mi, timeout: 2s}}\n", path.read_text())
        # All requests are sampled, however many they are.
        text = text.replace("policy:\n", "policy:\n  sampling: {guard: off}\n")
        if count != 1:
            raise RuntimeError(f"{path.name} has {count} destinations that are files and not one")
        path.write_text(text)
        return command


class Collector:
    """Takes requests on a thread of this process, and answers them or not."""

    def __init__(self, kind):
        self.server = None
        if kind == "dead":
            self.port = free_ports(1)[0]
            return
        over = self.over = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                left = int(self.headers["content-length"])
                while left > 0:
                    left -= len(self.rfile.read(min(left, 1 << 20))) or left
                if kind == "hanging":
                    over.wait()
                    return
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                # The proxy went, or gave up a request that hangs.
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        if self.server:
            self.over.set()
            self.server.shutdown()
            self.server.server_close()


def main(settings, start_origin, words):
    if not settings.perf:
        sys.exit("perf cannot record system calls here: apt-get install -y linux-perf, as root or with perf_event_paranoid 0")
    if platform.machine() not in WAITS:
        sys.exit(f"which system call waits is not known for {platform.machine()}")
    os.sched_setaffinity(0, settings.load_cores)
    work = next(work for work in WORKS if work.name == "http1-latency")
    rate, seconds = settings.rate, max(settings.seconds, 1.0)
    rounds = settings.rounds or ROUNDS
    seen = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="spanmesh-bench-") as folder:
        settings.folder = Path(folder)
        subprocess.run([settings.bench, "certificate", folder], check=True)
        origin = start_origin(settings)
        try:
            for turn in range(rounds):
                for kind in KINDS[turn % 3:] + KINDS[:turn % 3]:
                    seen[kind].append(run(settings, work, origin, kind, rate, seconds))
                    print(".", end="", flush=True, file=sys.stderr)
        except Missing as missing:
            sys.exit(str(missing))
        finally:
            origin["process"].kill()
    print(file=sys.stderr)
    print("\n".join(tables(seen, rate, seconds)), flush=True)
    wrong = verdicts(seen)
    print("\n" + "\n".join(wrong or ["a collector that is dead or hangs costs the application nothing that one that works does not"]))
    print(f"{len(KINDS) * rounds} runs, {len(wrong)} failed")
    return 1 if wrong else 0


def run(settings, work, origin, kind, rate, seconds):
    collector = Collector(kind)
    product = Traced(settings)
    product.collector = collector.port
    running = product.start(work, origin)
    try:
        pid = running.process.pid
        command = measure.load_command(settings, work, origin, running, [pid])
        command += ["--rate", str(rate)]
        # Long enough for the queue to be full: a span has some 400 bytes, and requests of spans are large.
        fill = 1.5 * QUEUE * (1 << 20) / 400 / rate + 1
        memory = Memory(pid, fill)
        calm = measure.load(settings, command + ["--seconds", str(seconds), "--warm", str(fill)])
        begun, ended = memory.stop()
        watched = watch(settings, pid, command + ["--seconds", str(seconds / 2), "--warm", "0"])
        if calm["errors"] or watched["errors"]:
            raise measure.Failed(f"{kind}: {calm['error'] or watched['error']}")
        return {**watched, "p50": calm["p50"], "p99": calm["p99"], "begun": begun, "ended": ended}
    finally:
        running.stop()
        collector.stop()


class Memory:
    """Resident MiB, after a while and until the end."""

    def __init__(self, pid, after):
        self.seen, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self.look, args=[pid, after])
        self.thread.start()

    def look(self, pid, after):
        self.over.wait(after)
        while not self.over.is_set():
            self.seen.append(measure.memory([pid])[0] / 1024)
            self.over.wait(0.2)

    def stop(self):
        """The medians of the first and of the last third."""
        self.over.set()
        self.thread.join()
        third = max(1, len(self.seen) // 3)
        return report.median(self.seen[:third]), report.median(self.seen[-third:])


def watch(settings, pid, load):
    """The worker's turns and stretches in milliseconds, and the system calls of a request."""
    workers = [task.name for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().startswith("worker")]
    data, total = settings.folder / "perf.data", settings.folder / "calls"
    everything = ["perf", "stat", "-x,", "-o", str(total), "-e", "raw_syscalls:sys_enter", "-p", str(pid), "--"]
    turns = ["perf", "record", "-q", "-o", str(data), "-m", "2048", "--switch-events", "-t", ",".join(workers),
             "-e", "raw_syscalls:sys_enter", "-e", "raw_syscalls:sys_exit", "--"]
    seen = measure.load(settings, load, [*turns, *everything])
    count = re.search(r"^(\d+),", total.read_text(), re.M)
    script = subprocess.run(["perf", "script", "-i", str(data), "--show-switch-events", "--show-lost-events",
                             "-F", "tid,time,event,trace"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    data.unlink()
    calls, turns, stretches = read(script.stdout.splitlines())
    return {"calls": int(count.group(1)) / seen["total"], "worker": calls / seen["total"], "turns": turns, "stretches": stretches,
            "errors": seen["errors"], "error": seen["error"]}


def read(lines):
    """How many system calls; how long each turn was, and its longest stretch."""
    waits, threads, calls, turns, stretches = WAITS[platform.machine()], {}, 0, [], []
    for line in lines:
        if "PERF_RECORD_LOST" in line:
            raise measure.Failed("perf lost events: fewer requests a second (--rate)")
        found = re.match(r"\s*(\d+)\s+(\d+\.\d+):\s+(.*)", line)
        if not found:
            continue
        thread, at, what = found.group(1), float(found.group(2)) * 1e3, found.group(3)
        state = threads.setdefault(thread, {"since": None, "left": None})
        if "PERF_RECORD_SWITCH" in what:
            # Who blocks in a turn has only itself to blame; who has to make way does not.
            if "OUT preempt" in what:
                state["left"] = at
            elif "IN" in what and state["left"] is not None:
                away = at - state["left"]
                state.update(left=None, away=state.get("away", 0.0) + away, last=state.get("last", 0.0) + away)
            continue
        number = re.search(r"sys_(enter|exit): NR (\d+)", what)
        if not number:
            continue
        enters, is_wait = number.group(1) == "enter", int(number.group(2)) in waits
        calls += enters
        if is_wait and not enters:
            state.update(since=at, last=at, away=0.0, longest=0.0, left=None)
        elif state["since"] is not None:
            state.update(longest=max(state["longest"], at - state["last"]), last=at)
            if is_wait:
                turns.append(at - state["since"] - state["away"])
                stretches.append(state["longest"])
                state["since"] = None
    return calls, turns, stretches


def tables(seen, rate, seconds):
    rounds = len(seen["healthy"])
    lines = [f"HTTP/1.1 at {rate:,.0f} requests/s over 64 connections, all sampled, {QUEUE} MiB for spans that wait, "
             f"{rounds} rounds of {seconds:.0f} s; least–most of the rounds", ""]
    rows = []
    for kind in KINDS:
        of = lambda key, digits: report.interval([figures[key] for figures in seen[kind]], digits)
        rows.append([kind, of("p50", 0), of("p99", 0), of("calls", 2), of("worker", 2), of("begun", 1), of("ended", 1)])
    lines += report.table(["collector", "p50 µs", "p99 µs", "calls/request", "the worker's", "RSS MiB, full", "at the end"], rows)
    names = [f"≤ {bound:g} ms" for bound in BOUNDS[:-1]] + ["longer"]
    for key, title in (("stretches", "the longest stretch of each of the worker's turns"), ("turns", "the turns, of all connections together")):
        rows = []
        for kind in KINDS:
            times = together(seen, kind, key)
            below = [sum(time <= bound for time in times) for bound in BOUNDS]
            each = [count - before for before, count in zip([0, *below], below)]
            rows.append([kind, *(f"{count:,}" for count in each), f"{max(times):.2f} ms"])
        lines += ["", title + ":", "", *report.table(["collector", *names, "longest"], rows)]
    return lines


def together(seen, kind, key):
    return [time for figures in seen[kind] for time in figures[key]]


def verdicts(seen):
    """What the pair has that a healthy collector has not."""
    wrong = []
    middle = lambda kind, key: report.median([figures[key] for figures in seen[kind]])
    long = {kind: sum(time > LONG for time in together(seen, kind, "stretches")) for kind in KINDS}
    for kind in KINDS[1:]:
        if long[kind] > long["healthy"]:
            wrong.append(f"{kind}: {long[kind]} polls longer than {LONG:g} ms, {long['healthy']} with a healthy collector")
        for key, whose in (("calls", "of the proxy"), ("worker", "of its worker")):
            if middle(kind, key) > middle("healthy", key) * (1 + CALLS):
                wrong.append(f"{kind}: {middle(kind, key):.2f} system calls {whose} for a request, "
                             f"{middle('healthy', key):.2f} with a healthy collector")
        growth = max(figures["ended"] - figures["begun"] for figures in seen[kind])
        if growth > MEMORY:
            wrong.append(f"{kind}: memory grew by {growth:.1f} MiB with a full queue")
    return wrong
