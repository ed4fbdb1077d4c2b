"""Runs the cases one after another and prints one line for each; called by `run`, which installs what they need."""

import argparse
import importlib
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
import traceback

import harness

PEERS = ("curl", "h2", "nginx", "haproxy", "nghttp", "grpc", "websockets", "autobahn", "h2spec", "openssl", "tcp", "drain", "smuggling", "propagators", "otlp", "mesh")
PACKAGES = {"h2load": "nghttp2-client", "nghttp": "nghttp2-client"}


def main():
    options = arguments()
    for peer in options.peers:
        importlib.import_module(f"peer_{peer}")
    cases = [case for case in harness.CASES if options.only in case.name and case.runs(options.direct) and (options.full or not case.full)]
    if options.list:
        print(*(case.name for case in cases), sep="\n")
        return 0
    binary = None if options.direct else proxy_binary()
    print(f"proxy: {binary or 'none, clients meet origins directly'}")
    began, passed, failed, skipped = time.monotonic(), 0, [], 0
    for number, case in enumerate(cases):
        if options.first_failure and failed:
            break
        missing = [program for program in case.needs if shutil.which(program) is None]
        if missing and not os.environ.get("CI"):
            skipped += 1
            print(f"skip  {case.name}: {install(missing)}", flush=True)
            continue
        start = time.monotonic()
        trouble = [f"missing: {install(missing)}"] if missing else run(case, options.direct, binary)
        seconds = time.monotonic() - start
        print(f"{'FAIL' if trouble else 'ok':<4} {seconds:6.2f} s  {case.name}", flush=True)
        if trouble:
            failed.append(case.name)
            for part in trouble:
                print("    " + part.strip().replace("\n", "\n    "), flush=True)
        else:
            passed += 1
    if failed:
        print("failed:", *failed, sep="\n    ")
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {len(failed)} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed or not passed else 0


def run(case, direct, binary):
    """What went wrong, as text; nothing when the promise held."""
    lab = harness.Lab(direct=direct, binary=binary)
    trouble = []
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(case.seconds)
    try:
        case.run(lab)
    except AssertionError as error:
        place = traceback.extract_tb(error.__traceback__)[-1 if error.args else 0]
        trouble.append(f"{error or place.line} ({where(error)})")
    except Exception:
        trouble.append(traceback.format_exc())
    finally:
        # Stopping has limits of its own.
        signal.alarm(0)
    return trouble + lab.close(bool(trouble))


def where(error):
    """The innermost line of a case, not of the harness."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name = pathlib.Path(frame.filename).name
        if name.startswith("peer_"):
            return f"{name}:{frame.lineno}"
    return "harness"


def too_long(*_):
    raise TimeoutError("the case took longer than it may")


def install(programs):
    return "apt-get install " + " ".join(sorted({PACKAGES.get(program, program) for program in programs}))


def proxy_binary():
    target = pathlib.Path(os.environ.get("SPANMESH_TARGET", "target"))
    named = os.environ.get("SPANMESH_PROXY")
    found = [pathlib.Path(named)] if named else [target / kind / "spanmesh-proxy" for kind in ("release", "debug")]
    found = [path for path in found if path.is_file()]
    if not found:
        sys.exit("no proxy found: cargo build --bin spanmesh-proxy, or name one in SPANMESH_PROXY")
    # Both may lie there: the one built last is meant.
    return max(found, key=lambda path: path.stat().st_mtime).resolve()


def arguments():
    parser = argparse.ArgumentParser(prog="tests/peers/run", description="drive the proxy with software that no one here wrote")
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"only these files: {' '.join(PEERS)}")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name holds this text")
    parser.add_argument("--direct", action="store_true", help="no proxy: wire clients to origins, to prove the cases themselves")
    parser.add_argument("--full", action="store_true", help="also the cases that take minutes")
    parser.add_argument("--first-failure", action="store_true", help="stop there")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    options = parser.parse_args()
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        parser.error(f"no such peer: {' '.join(sorted(unknown))}")
    options.peers = options.peers or PEERS
    return options


if __name__ == "__main__":
    try:
        code = main()
    finally:
        shutil.rmtree(harness.ROOM, ignore_errors=True)
    sys.stdout.flush()
    # Threads of peers that wait for a connection must not hold the exit code back.
    os._exit(code) if threading.active_count() > 1 else sys.exit(code)
