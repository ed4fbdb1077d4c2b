"""`benches/run`: reads the command line, starts the origin, gives the work out in turn, prints the report."""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import collectors
import instructions
import measure
import report
from products import PRODUCTS, ROOT, Missing
from works import MEBI, WORKS


class Settings:
    """What the command line and the machine settle."""

    def __init__(self, words):
        smoke = self.smoke = words.smoke
        self.rounds = words.rounds or (1 if smoke else None)
        self.seconds = words.seconds or (0.2 if smoke else 3.0)
        self.warm = 0.1 if smoke else 0.7
        self.breath = 0.05 if smoke else 0.3
        self.settle = 0.5 if smoke else 6.0
        self.size = words.size * MEBI if words.size else (64 if smoke else 1024) * MEBI
        self.most_connections = 100 if smoke else 10**9
        self.rate, self.workers, self.generator = words.rate, words.workers, words.generator
        self.peers = Path(words.peers).resolve()
        self.target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2 or words.workers >= len(cores):
            self.proxy_cores = self.load_cores = set(cores)
        else:
            self.proxy_cores, self.load_cores = set(cores[:words.workers]), set(cores[words.workers:])
        self.perf = can_count_calls()

    def connections(self, work):
        # One file each for the client's side, and a little room.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
        return min(work.connections, self.most_connections, files)


def main():
    words = arguments()
    settings = Settings(words)
    raise_open_files()
    settings.bench, settings.proxy = binaries(settings, words)
    if words.instructions:
        return instructions.main(settings, start_origin, words)
    if words.collector:
        return collectors.main(settings, start_origin, words)
    products = chosen(settings, words)
    works = [work for work in WORKS if not words.only or any(word in work.name for word in words.only.split(","))]
    if not works:
        sys.exit(f"no work has such a name; there are: {' '.join(work.name for work in WORKS)}")
    # Memory, if there is room: a disk that writes what the proxies log would be measured too.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spanmesh-bench-", dir=place) as folder:
        settings.folder = Path(folder)
        subprocess.run([settings.bench, "certificate", folder], check=True)
        origin = start_origin(settings)
        try:
            everything = give_out(settings, products, works, origin)
        finally:
            origin["process"].kill()
    if words.json:
        Path(words.json).write_text(json.dumps(everything, indent=1))
    failed = sum(isinstance(figures, str) for results in everything.values()
                 for rounds in results.values() for figures in rounds)
    runs = sum(len(rounds) for results in everything.values() for rounds in results.values())
    print(f"\n{time.monotonic() - began:.0f} s")
    print(f"{runs - failed} passed, {failed} failed")
    return 1 if failed else 0


def give_out(settings, products, works, origin):
    print("\n".join(heading(settings, products)), flush=True)
    everything = {}
    for work in works:
        able = [product for product in products if product.speaks(work)]
        results = everything[work.name] = {product.name: [] for product in able}
        for turn in range(1 if work.one_round else settings.rounds or work.rounds):
            # Each round begins with another product, so that none is always the one after Envoy.
            for product in able[turn % len(able):] + able[:turn % len(able)]:
                # How fast it is without a proxy needs no second round, its latency does: it is subtracted.
                if product.name == "direct" and turn > 0 and not work.latency:
                    continue
                results[product.name].append(attempt(settings, product, work, origin, turn == 0))
        print("\n".join(report.work(work.title, work, results)), flush=True)
    return everything


def attempt(settings, product, work, origin, first):
    try:
        return measure.run(settings, product, work, origin, first)
    except (measure.Failed, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return f"{error}"


def heading(settings, products):
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    lines = [f"# {time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} cores, Linux {platform.release()}", ""]
    lines += [f"- {product.name}: {product.version()}" for product in products]
    pinned = settings.proxy_cores != settings.load_cores
    lines.append(f"- proxies: {settings.workers} worker(s) on core {names(settings.proxy_cores)}; load and origin on core "
                 f"{names(settings.load_cores)}" + ("" if pinned else "; NOT apart: throughput and latency say little"))
    lines.append(f"- {settings.rounds or 'its own number of'} rounds of {settings.seconds} s; latency at {settings.rate} requests/s; "
                 f"bodies of {settings.size // MEBI} MiB; median (least–most); RSS is summed over processes")
    if not settings.perf:
        lines.append("- system calls: perf cannot count them here (raw_syscalls:sys_enter); "
                     + ("strace does" if shutil.which("strace") else "apt-get install -y strace"))
    load = os.getloadavg()[0]
    if load > 0.5:
        lines.append(f"- NOT CALM: the load average was {load:.1f} before it began; trust no figure of this run")
    return lines


def names(cores):
    return ", ".join(map(str, sorted(cores)))


def chosen(settings, words):
    """The products that are there; each that is not is named with what installs it."""
    products, wanted = [], words.products.split(",") if words.products else None
    for kind in PRODUCTS:
        if wanted and kind.name not in wanted:
            continue
        if words.smoke and kind.name == "direct" and not wanted:
            continue
        try:
            products.append(kind(settings))
        except Missing as missing:
            print(f"{kind.name} is not installed: {missing}")
    for tool, package in (("wrk", "wrk"), ("h2load", "nghttp2-client")):
        if words.generator == tool and not shutil.which(tool):
            sys.exit(f"{tool} is not installed: apt-get install -y {package}")
    return products


def start_origin(settings):
    process = subprocess.Popen(
        [settings.bench, "origin", "--http1", "127.0.0.1:0", "--http2", "127.0.0.1:0", "--tcp", "127.0.0.1:0",
         "--spans", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, settings.load_cores))
    ports = process.stdout.readline().split()
    return {"process": process, "pid": process.pid, **dict(zip(("http1", "http2", "tcp", "spans"), ports))}


def binaries(settings, words):
    """The two programs, built in the release profile where they are not given."""
    proxy = words.proxy or os.environ.get("SPANMESH_PROXY")
    bench = os.environ.get("SPANMESH_BENCH")
    if not (proxy and bench) and not words.no_build:
        packages = ["-p", "spanmesh-benches", "-p", "spanmesh-proxy"]
        subprocess.run(["cargo", "build", "--quiet", "--release", "--bins", *packages], cwd=ROOT, check=True)
    release = settings.target / "release"
    found = [str(Path(bench or release / "spanmesh-bench").resolve()),
             str(Path(proxy or release / "spanmesh-proxy").resolve())]
    for path in found:
        if not os.access(path, os.X_OK):
            sys.exit(f"{path} is not there: cargo build --release --bins -p spanmesh-benches -p spanmesh-proxy")
    return found


def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65536, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return
        except (ValueError, OSError):
            continue


def can_count_calls():
    if not shutil.which("perf"):
        return False
    probe = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"]
    done = subprocess.run(probe, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0 and "not " not in done.stdout


def arguments():
    parser = argparse.ArgumentParser(prog="benches/run", description="Measures the proxy beside nginx, HAProxy and Envoy.")
    add = parser.add_argument
    add("--rounds", type=int, help="rounds of each work (3; 15 where every request is traced)")
    add("--seconds", type=float, help="length of each measurement (3)")
    add("--only", help="works whose name contains one of these, separated by commas")
    add("--products", help="of spanmesh,nginx,haproxy,envoy,envoy-512,direct")
    add("--rate", type=float, default=5000, help="requests a second where latency is measured (5000)")
    add("--size", type=int, help="MiB of a large body (1024)")
    add("--workers", type=int, default=1, help="workers of each product; as many as cores: nothing is pinned apart")
    add("--generator", choices=["own", "wrk", "h2load"], default="own", help="a second opinion where it can do the work")
    add("--peers", default=str(ROOT / "benches" / "peers"), help="folder with other configurations of the peers")
    add("--proxy", help="the proxy to measure ($SPANMESH_PROXY; else it is built)")
    add("--no-build", action="store_true", help="take the programs as they are in the target directory")
    add("--json", help="file for all figures of all rounds")
    add("--smoke", action="store_true", help="short and small: shows that the harness works; its figures mean nothing")
    add("--instructions", action="store_true", help="count instructions with callgrind, compare with figures.toml")
    add("--collector", action="store_true", help="what a collector that is dead or hangs costs, beside one that works")
    add("--without-spans", metavar="FILE", help="with --instructions: what spans cost, against a proxy that was built without them")
    add("--bless", action="store_true", help="with --instructions: write figures.toml anew")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
