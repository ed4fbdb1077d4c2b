"""One run of one work against one product: its figures, and why they should not be trusted."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from works import MEBI

# Shares of a core's time.
SATURATED = 0.95
PROXY_FULL = 0.90
STOLEN = 0.01
FOREIGN = 0.05
# Seconds: the kernel tells a process's time in steps of 10 ms.
FEW = 0.2
# Seconds that spans may wait before they are sent: the products' own five, and some.
PATIENCE = 8.0


class Failed(Exception):
    """The run gave no figures."""


def run(settings, product, work, origin, first):
    """A dictionary: figures, and `doubts` as a list of words. `first`: also what is measured only once."""
    running = product.start(work, origin)
    try:
        return measure(settings, product, work, origin, running, first)
    finally:
        running.stop()


def measure(settings, product, work, origin, running, first):
    pids = running.pids()
    time.sleep(settings.breath)
    empty = memory(pids)
    if work.empty:
        time.sleep(min(1.0, settings.seconds))
        return {**{name: value for name, value in zip(("resident", "proportional"), memory(pids))}, "doubts": []}
    if settings.generator == work.other:
        return by_another(settings, work, running, pids)
    command = load_command(settings, work, origin, running, pids)
    before = taken(origin) if work.traced else 0
    seen = load(settings, command + timing(settings, work))
    if seen["errors"]:
        raise Failed(f"{seen['errors']} wrong answers or broken connections, the last: {seen['error']}")
    if work.memory:
        connections = settings.connections(work)
        figures = {"resident": seen["resident"], "proportional": seen["proportional"]}
        figures["each"] = (seen["resident"] - empty[0]) / connections
        figures["each proportional"] = (seen["proportional"] - empty[1]) / connections
        return {**figures, "doubts": []}
    figures = read(settings, work, seen)
    if work.traced and product.spans:
        # A smoke test does not wait for the last ones.
        expected = 1 if settings.smoke else seen["total"] * product.spans
        figures["spans"] = arrived(origin, before, expected) / seen["total"]
        if figures["spans"] * seen["total"] < expected:
            figures["doubts"].append(f"only {figures['spans']:.2f} spans of a request arrived")
    if first and pids and not work.latency:
        figures["calls"] = calls(settings, command, pids, work)
    return figures


def load_command(settings, work, origin, running, pids):
    command = [settings.bench, "load", f"127.0.0.1:{running.port}", work.load,
               "--connections", settings.connections(work), "--streams", work.streams, "--size", settings.size]
    if work.door == "tls":
        command += ["--tls", settings.folder / "tls.crt"]
    for pid in pids:
        command += ["--product", pid]
    return [str(word) for word in command + ["--origin", origin["pid"]]]


def timing(settings, work):
    if work.memory:
        return ["--settle", str(settings.settle)]
    words = ["--seconds", str(settings.seconds), "--warm", str(settings.warm)]
    return words + ["--rate", str(settings.rate)] if work.latency else words


def load(settings, command, before=()):
    done = subprocess.run([*before, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=180, preexec_fn=lambda: os.sched_setaffinity(0, settings.load_cores))
    if done.returncode != 0:
        raise Failed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the load failed")
    return json.loads(done.stdout.splitlines()[-1])


def read(settings, work, seen):
    """What the load saw, in the units of the report."""
    units = seen["bytes"] / MEBI if work.bulk else seen["done"]
    if not units:
        raise Failed("nothing was answered in time")
    figures = {
        "cpu": seen["product"] * 1e6 / units, "rate": units / seen["seconds"],
        "resident": seen["resident"], "proportional": seen["proportional"], "peak": seen["peak"],
        "p50": seen["p50"], "p99": seen["p99"],
        "full": seen["product"] / seen["seconds"] / max(1, len(settings.proxy_cores)),
    }
    figures["doubts"] = doubts(settings, work, seen)
    return figures


def doubts(settings, work, seen):
    """Why a figure should not be trusted."""
    found, cores = [], seen["cores"]
    if 0 < seen["product"] < FEW:
        found.append(f"only {seen['product']:.2f} s of CPU time, counted in steps of 0.01 s")

    def share(which, of):
        total = sum(sum(cores[core].values()) for core in which)
        return sum(of(cores[core]) for core in which) / total if total else 0.0

    proxy, load = sorted(settings.proxy_cores), sorted(settings.load_cores)
    busy = lambda core: core["busy"]
    stolen = share(sorted(set(proxy + load)), lambda core: core["stolen"])
    if stolen > STOLEN:
        found.append(f"stolen {stolen:.0%}")
    own = seen["load"] + seen["origin"]
    if proxy == load:
        parts = [("core", proxy, seen["product"] + own)]
    else:
        parts = [("proxy's core", proxy, seen["product"]), ("load's core", load, own)]
        if (not work.latency and share(load, busy) > SATURATED and share(proxy, busy) < PROXY_FULL
                and seen["product"] > 0):
            found.append(f"load saturated, proxy's core only {share(proxy, busy):.0%} busy")
    for name, which, known in parts:
        total = sum(sum(cores[core].values()) for core in which)
        foreign = (sum(cores[core]["busy"] for core in which) - known) / total if total else 0.0
        if foreign > FOREIGN:
            found.append(f"others on the {name} {foreign:.0%}")
    return found


def taken(origin):
    """How many spans their receiver was sent so far, by all products."""
    with urllib.request.urlopen(f"http://127.0.0.1:{origin['spans']}/", timeout=10) as answer:
        return int(answer.read())


def arrived(origin, before, expected):
    """How many came since then; the last of them wait a while for others."""
    end = time.monotonic() + PATIENCE
    while (count := taken(origin) - before) < expected and time.monotonic() < end:
        time.sleep(0.05)
    return count


def calls(settings, command, pids, work):
    """System calls of the product per unit, from a run of its own."""
    short = command + ["--seconds", str(min(1.0, settings.seconds)), "--warm", "0"]
    where = settings.folder / "calls"
    if settings.perf:
        watch = ["perf", "stat", "-x,", "-o", str(where), "-e", "raw_syscalls:sys_enter",
                 "-p", ",".join(map(str, pids)), "--"]
        seen = load(settings, short, watch)
        found = re.search(r"^(\d+),", where.read_text(), re.M)
    elif shutil.which("strace"):
        watch = ["strace", "-c", "-f", "-o", str(where)]
        for pid in pids:
            watch += ["-p", str(pid)]
        tracer = subprocess.Popen(watch, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        seen = load(settings, short)
        tracer.terminate()
        tracer.wait()
        found = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+).*total$", where.read_text(), re.M)
    else:
        return None
    units = seen["bytes"] / MEBI if work.bulk else seen["total"]
    return int(found.group(1)) / units if found and units else None


def by_another(settings, work, running, pids):
    """The same work by wrk or h2load: a second opinion on CPU and rate. Answers are only counted."""
    scheme = "https" if work.door == "tls" else "http"
    url = f"{scheme}://127.0.0.1:{running.port}/small"
    seconds = max(1, round(settings.seconds))
    if work.other == "wrk":
        command = ["wrk", "-t1", f"-c{settings.connections(work)}", f"-d{seconds}s", url]
    else:
        command = ["h2load", "-t1", f"-c{work.connections}", f"-m{work.streams}", f"-D{seconds}", url]
    before = ticks(pids)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
                          preexec_fn=lambda: os.sched_setaffinity(0, settings.load_cores))
    used = (ticks(pids) - before) / os.sysconf("SC_CLK_TCK")
    found = re.search(r"(\d+) requests in" if work.other == "wrk" else r"(\d+) succeeded", done.stdout)
    wrong = re.search(r"Non-2xx.*|Socket errors.*|[1-9]\d* (failed|errored|timeout)", done.stdout)
    if done.returncode or not found or not int(found.group(1)) or wrong:
        raise Failed(wrong.group(0) if wrong else f"{work.other} gave no figures")
    resident, proportional = memory(pids)
    units = int(found.group(1))
    return {"cpu": used * 1e6 / units, "rate": units / seconds, "resident": resident, "proportional": proportional,
            "doubts": ["cores not watched"]}


def ticks(pids):
    total = 0
    for pid in pids:
        fields = Path("/proc", str(pid), "stat").read_text().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


def memory(pids):
    """Resident and proportional, in KiB."""
    sums = [0, 0]
    for pid in pids:
        text = Path("/proc", str(pid), "smaps_rollup").read_text()
        for place, name in enumerate(("Rss", "Pss")):
            sums[place] += int(re.search(rf"^{name}:\s+(\d+)", text, re.M).group(1))
    return tuple(sums)
