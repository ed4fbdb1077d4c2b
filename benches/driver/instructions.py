"""Instructions of the whole proxy per request, counted by callgrind and compared with benches/figures.toml.

The release build runs under valgrind with the example's configuration, all threads one after the other. One connection
asks so often, then the proxy drains; a second run asks more often. The difference is what the requests cost."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import measure
from products import ROOT, Missing, Spanmesh
from works import WORKS

FIGURES = ROOT / "benches" / "figures.toml"
# name in figures.toml → work, connections, streams
COUNTED = {"http1": ("http1-64", 1, 1), "http1-post": ("http1-post", 1, 1), "h2c": ("h2c", 1, 10),
           "grpc-unary": ("grpc-unary", 1, 10), "tls-http2": ("tls-http2", 1, 10)}
SHORT, LONG = 300, 1300
GROWN, FULL = 1100, 3100
# What becomes of traces, and how many more instructions than the same without spans it may take. Sampled means encoded and sent.
SPANS = [("none sampled", "{never: {}}", 0.04), ("10 % sampled", '{probability: "0.1"}', 0.06), ("all sampled", "{always: {}}", 0.20)]


class Counted(Spanmesh):
    """The proxy under callgrind."""

    def find(self):
        super().find()
        if not shutil.which("valgrind"):
            raise Missing("apt-get install -y valgrind")

    def command(self, folder, work, names):
        command = super().command(folder, work, names)
        # What is kept does not depend on how fast this machine is.
        path = Path(command[-1])
        text, count = re.subn(r"^policy:\n(?!  sampling)", "policy:\n  sampling: {guard: off}\n", path.read_text(), flags=re.M)
        if not count and "guard: off" not in text:
            raise RuntimeError(f"{path.name} has no policy")
        path.write_text(text)
        return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind.out", *command]


def main(settings, start_origin, words):
    try:
        product = Counted(settings)
    except Missing as missing:
        sys.exit(f"valgrind is not installed: {missing}")
    if words.without_spans:
        return spans(settings, product, start_origin, words.without_spans)
    written = tomllib.loads(FIGURES.read_text()).get("instructions", {})
    tolerance = written.get("tolerance", 0.05)
    counted, wrong = {}, 0
    with tempfile.TemporaryDirectory(prefix="spanmesh-bench-") as folder:
        settings.folder = Path(folder)
        subprocess.run([settings.bench, "certificate", folder], check=True)
        origin = start_origin(settings)
        try:
            for name, (work, connections, streams) in COUNTED.items():
                if words.only and not any(word in name for word in words.only.split(",")):
                    continue
                work = next(known for known in WORKS if known.name == work)
                short, long = (count(settings, product, work, origin, connections, streams, requests)
                               for requests in (SHORT, LONG))
                counted[name] = (long - short) // (LONG - SHORT)
                expected = written.get(name, 0)
                if words.bless:
                    print(f"{name:<12} {counted[name]:>9,} instructions a request, was {expected:,}", flush=True)
                    continue
                change = counted[name] / expected - 1 if expected else float("inf")
                # An upper bound: another kind of processor takes other ways through libc, some of them shorter.
                right, fewer = change <= tolerance, change < -tolerance
                wrong += not right
                print(f"{name:<12} {counted[name]:>9,} instructions a request, written down {expected:>9,}, "
                      f"{change:+.1%} {'fewer' if fewer else 'ok' if right else 'WRONG'}", flush=True)
        finally:
            origin["process"].kill()
    if words.bless:
        bless(counted)
        return 0
    if wrong:
        print("find out why (callgrind_annotate), or write the reason into the commit that writes it down with --bless")
    print(f"{len(counted) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


def spans(settings, product, start_origin, without):
    """What spans cost, against the same proxy built without them: a sidecar's, sent to a receiver that discards them."""
    product.mode, wrong = "inbound", 0
    work = next(known for known in WORKS if known.name == "traced-http1")
    with tempfile.TemporaryDirectory(prefix="spanmesh-bench-") as folder:
        settings.folder = Path(folder)
        origin = start_origin(settings)
        try:
            for name, product.sampled, most in SPANS:
                figures = []
                for product.binary in (str(Path(without).resolve()), settings.proxy):
                    # After the first two requests of 512 spans, whose buffers have to grow.
                    short, long = (count(settings, product, work, origin, 1, 1, requests) for requests in (GROWN, FULL))
                    figures.append((long - short) // (FULL - GROWN))
                change = figures[1] / figures[0] - 1
                wrong += change > most
                print(f"{name:<12} {figures[1]:>9,} instructions a request, without spans {figures[0]:>9,}, {change:+.1%}, "
                      f"at most {most:+.0%} {'WRONG' if change > most else 'ok'}", flush=True)
        finally:
            origin["process"].kill()
    print(f"{len(SPANS) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


def count(settings, product, work, origin, connections, streams, requests):
    running = product.start(work, origin)
    try:
        command = [settings.bench, "load", f"127.0.0.1:{running.port}", work.load, "--connections", connections,
                   "--streams", streams, "--requests", requests]
        if work.door == "tls":
            command += ["--tls", settings.folder / "tls.crt"]
        seen = measure.load(settings, [str(word) for word in command])
        if seen["errors"]:
            raise SystemExit(f"{work.name}: {seen['error']}")
        # The spans and log lines of the last requests are written a moment later, and belong to them.
        time.sleep(1.5)
        os.kill(running.process.pid, signal.SIGTERM)
        running.process.wait(60)
        text = (running.folder / "stderr").read_text(errors="replace")
        return int(re.search(r"Collected : (\d+)", text).group(1))
    finally:
        running.stop()


def bless(counted):
    text = FIGURES.read_text()
    head, section = text.split("[instructions]\n", 1)
    lines = [line for line in section.splitlines() if line.split("=")[0].strip() not in counted]
    lines += [f"{name} = {figure}" for name, figure in counted.items()]
    FIGURES.write_text(head + "[instructions]\n" + "\n".join(line for line in lines if line) + "\n")
    print(f"{FIGURES} is written anew")
