"""Tracing libraries' own propagators against the proxy's: the same headers, read and written by both."""

import collections
import json
import os
import random
import socket
import sys

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.ot_trace import OTTracePropagator

from harness import case, check, equal, free_port
from propagators import ACCEPT, DEBUG, DENY, PEERS, Getter

FORMATS = ("w3c", "b3", "b3multi", "jaeger", "xray", "datadog", "gcp", "skywalking", "binary", "ottrace")
# Formats that have a word for a trace that is forced.
DEBUGS = ("b3", "b3multi", "jaeger", "datadog")
COUNT = int(os.environ.get("SPANMESH_HEADER_SETS", "1000"))
SEED = int(os.environ.get("SPANMESH_SEED", "20"))


class Road:
    """A proxy that reads one format and writes all, before an origin that tells what it got."""

    def __init__(self, lab, format, **propagation):
        port = free_port()
        lab.spawn("heads", [sys.executable, os.path.join(os.path.dirname(__file__), "heads.py"), port], ports=[port])
        self.spans = lab.path("spans.jsonl")
        rules = {"extract": [format], "inject": FORMATS, "requestId": False, **propagation}
        self.proxy = lab.proxy(
            # Declared: while many sets are made, the client is silent for longer than detection waits.
            [{"name": "in", "mode": "inbound", "upstream": "app", "protocol": "http"}],
            [{"name": "app", "addresses": [f"127.0.0.1:{port}"], "protocol": "http1"}],
            policy={"propagation": rules, "destinations": [{"name": "file", "file": {"path": str(self.spans)}}]},
            telemetry={"log": "info"},
        )
        self.socket = socket.create_connection(("127.0.0.1", self.proxy.port("in")), 10)
        self.buffer = b""

    def ask(self, sets):
        """The headers that the origin got for each of these sets, a few requests at once on one connection."""
        got = []
        for start in range(0, len(sets), 16):
            some = sets[start : start + 16]
            lines = (b"GET /x HTTP/1.1\r\nhost: a\r\n" + b"".join(b"%s: %s\r\n" % (name.encode(), value.encode()) for name, value in each) + b"\r\n" for each in some)
            self.socket.sendall(b"".join(lines))
            got += [self.answer() for _ in some]
        return got

    def answer(self):
        head = self.until(lambda: self.buffer.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self.buffer else None)
        check(head.startswith(b"HTTP/1.1 200"), head + self.buffer)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = self.until(lambda: length if len(self.buffer) >= length else None)
        headers = collections.defaultdict(list)
        for line in body.decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()].append(value.strip())
        return headers

    def until(self, end):
        while (place := end()) is None:
            data = self.socket.recv(1 << 16)
            check(data, "the proxy closed the connection")
            self.buffer += data
        taken, self.buffer = self.buffer[:place], self.buffer[place:]
        return taken

    def parents(self):
        """Of the spans that were written: their parents."""
        self.socket.close()
        found = {}
        for line in self.spans.read_text().splitlines():
            for resource in json.loads(line)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    found.update((int(span["spanId"], 16), int(span.get("parentSpanId") or "0", 16)) for span in scope["spans"])
        return found


def number(dice, bits):
    """Ids as they come, and such as have many zeros."""
    width = dice.choice((bits, bits, bits, bits - 4, bits - 8, bits // 2, 5))
    return dice.randrange(1, 1 << width)


def contexts(dice, peer):
    for _ in range(COUNT):
        bits = 64 if peer.width == 64 else dice.choice((128, 128, 64))
        yield number(dice, bits), number(dice, 64), dice.choice(peer.decisions)


def theirs_to_ours(peer):
    @case(f"{peer.name}: what it writes goes on with the same ids and decision in every format, and every library reads it", direct=False, seconds=1800)
    def both_ways(lab):
        dice = random.Random(f"{SEED} {peer.name}")
        road = Road(lab, peer.format)
        asked = list(contexts(dice, peer))
        answers = road.ask([list(peer.write(*context).items()) for context in asked])
        ours = {}
        for context, headers in zip(asked, answers):
            ids, parent, decision = context
            decision = peer.means.get(decision, decision)
            check("traceparent" in headers, f"{context} {dict(headers)}")
            _, seen, span, flags = headers["traceparent"][0].split("-")
            shown = f"{context} → {dict(headers)}"
            equal((int(seen, 16), int(flags, 16) & 1), (ids, int(decision != DENY)), shown)
            check(int(span, 16) != parent, shown)
            if decision != DENY:
                ours[int(span, 16)] = parent
            for reader in PEERS:
                known = ids & (1 << 64) - 1 if reader.width == 64 else ids
                read = reader.read(headers)
                if known & (1 << 64) - 1 == 0 and reader.format in ("datadog", "ottrace"):
                    equal(read, None, f"{reader.name}: an id of zero\n{shown}")
                    continue
                check(read is not None, f"{reader.name} reads nothing\n{shown}")
                equal((read.trace, read.parent, read.sampled), (known, int(span, 16), decision != DENY), f"{reader.name}\n{shown}")
                if read.debug is not None:
                    equal(read.debug, decision == DEBUG and peer.format in DEBUGS, f"{reader.name}: debug\n{shown}")
        road.socket.close()
        road.proxy.stop()
        written = road.parents()
        both = {span: written[span] for span in ours if span in written}
        equal(both, {span: ours[span] for span in both}, "parents of the proxy's spans")
        check(len(both) * 2 >= len(ours), f"{len(both)} of {len(ours)} spans were written")


def mutated(peer):
    @case(f"{peer.name}: what is spoilt is read by both or by neither, but for what is written down", direct=False, seconds=1800)
    def spoilt(lab):
        dice = random.Random(f"{SEED} {peer.name}")
        road = Road(lab, peer.format)
        sets, names = [], []
        for context in contexts(dice, peer):
            name, change = dice.choice(CHANGES)
            lines = change(dice, list(peer.write(*context).items()))
            sets.append(lines)
            names.append((name, context))
        differences = collections.defaultdict(list)
        for lines, (name, context), headers in zip(sets, names, road.ask(sets)):
            check("traceparent" in headers, f"{lines} {dict(headers)}")
            ours = int(headers["traceparent"][0].split("-")[1], 16)
            sampled = headers["traceparent"][0].endswith(("1", "3"))
            given = collections.defaultdict(list)
            for field, value in lines:
                given[field].append(value.strip(" \t"))
            theirs = peer.read(given)
            low = (1 << 64) - 1
            if theirs is None:
                # A new trace is random: it shares its low half with none that was sent.
                if ours & low == context[0] & low:
                    differences[name, PROXY].append(lines)
            elif theirs.trace != ours:
                differences[name, LIBRARY].append((lines, theirs, f"{ours:032x}"))
            elif theirs.sampled and not sampled:
                differences[name, KEEPS].append((lines, theirs))
        known = KNOWN.get(peer.name, {})
        unknown = {(name, who): found for (name, who), found in differences.items() if name not in known.get(who, "").split(", ")}
        check(not unknown, "\n".join(f"{len(found)} × {key}, such as {found[0]}" for key, found in unknown.items()))


def one(dice, lines, change):
    place = dice.randrange(len(lines))
    name, value = lines[place]
    lines[place] = (name, change(value))
    return lines


def cut(dice, value):
    return value[: dice.randrange(len(value))]


def put(dice, value, text):
    place = dice.randrange(len(value) + 1)
    return value[:place] + text + value[place:]


def swap(dice, value, text):
    place = dice.randrange(len(value))
    return value[:place] + text + value[place + 1 :]


# What becomes of a set of headers: a name, by which differences are written down, and the change.
CHANGES = [
    ("upper case", lambda dice, lines: [(name, value.upper()) for name, value in lines]),
    ("cut", lambda dice, lines: one(dice, lines, lambda value: cut(dice, value))),
    ("first digit gone", lambda dice, lines: one(dice, lines, lambda value: value[1:])),
    ("a digit more", lambda dice, lines: one(dice, lines, lambda value: put(dice, value, "1"))),
    ("no digit", lambda dice, lines: one(dice, lines, lambda value: swap(dice, value, "g"))),
    ("a separator more", lambda dice, lines: one(dice, lines, lambda value: put(dice, value, dice.choice("-:;/=,"))) ),
    ("a space inside", lambda dice, lines: one(dice, lines, lambda value: put(dice, value, " "))),
    ("spaces around", lambda dice, lines: [(name, f" \t{value} ") for name, value in lines]),
    ("more behind", lambda dice, lines: one(dice, lines, lambda value: value + "-more")),
    ("zeros", lambda dice, lines: one(dice, lines, lambda value: "".join("0" if byte.isalnum() else byte for byte in value))),
    ("empty", lambda dice, lines: one(dice, lines, lambda value: "")),
    ("a header gone", lambda dice, lines: [line for line in lines if line != dice.choice(lines)]),
    ("twice the same", lambda dice, lines: lines + [dice.choice(lines)]),
    ("twice", lambda dice, lines: lines + one(dice, [dice.choice(lines)], lambda value: swap(dice, value, "1"))),
]

# What somebody reads that the other does not. `PROPAGATION.md` has the reasons.
LIBRARY, PROXY, KEEPS = "only the library reads it", "only the proxy reads it", "the proxy drops what the library keeps"
KNOWN = {
    "OpenTelemetry tracecontext": {LIBRARY: "twice the same, twice"},
    "OpenTelemetry b3 single": {LIBRARY: "more behind, twice, cut, a digit more, a space inside, a separator more, no digit"},
    "ddtrace b3 single": {
        LIBRARY: "more behind, a digit more, first digit gone, upper case, twice, cut, a separator more, a space inside, no digit",
        PROXY: "twice the same, twice",
    },
    "OpenTelemetry b3 multi": {LIBRARY: "more behind, twice, cut, a digit more, first digit gone, a separator more, no digit, empty"},
    "ddtrace b3 multi": {
        LIBRARY: "more behind, twice, cut, a digit more, first digit gone, a separator more, no digit, empty, zeros, a header gone",
        PROXY: "twice the same, twice",
    },
    "OpenTelemetry jaeger": {LIBRARY: "twice, a digit more, a separator more, a space inside, no digit"},
    "OpenTelemetry aws xray": {PROXY: "twice the same, twice, cut, a digit more, a separator more, a space inside, no digit"},
    "OpenTelemetry google cloud": {LIBRARY: "twice, a digit more", PROXY: "cut"},
    "OpenTelemetry ot-trace": {
        LIBRARY: "more behind, twice, cut, a digit more, first digit gone, a separator more, a space inside, no digit, empty, zeros",
        PROXY: "upper case",
    },
    "ddtrace datadog": {
        LIBRARY: "twice, a digit more, a separator more, a space inside",
        PROXY: "more behind, twice the same, twice, cut, first digit gone, a separator more, no digit, empty",
    },
    "apache-skywalking": {
        LIBRARY: "twice, first digit gone, a digit more, a separator more, a space inside, no digit",
        PROXY: "cut, a digit more, a separator more, no digit",
    },
    "OpenCensus binary": {
        LIBRARY: "twice, upper case, zeros, no digit",
        PROXY: "more behind, cut, a digit more, a separator more",
        KEEPS: "no digit",
    },
}

# Baggage: what a library writes, and the headers that it travels in.
def baggage_passes(name, propagator):
    @case(f"OpenTelemetry {name}: its baggage is the same behind the proxy", direct=False, seconds=600)
    def passes(lab):
        dice = random.Random(f"{SEED} {name}")
        road = Road(lab, "w3c")
        span = trace.NonRecordingSpan(trace.SpanContext(1 << 100 | 7, 7, False, trace.TraceFlags(1)))
        sent, sets = [], []
        for _ in range(COUNT):
            context, members = trace.set_span_in_context(span), {}
            for _ in range(dice.randrange(1, 20)):
                key = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789-_.", k=dice.randrange(1, 20)))
                members[key] = "".join(dice.choices("abcXYZ019-_. %&=;,/é" if name == "baggage" else "abcXYZ019", k=dice.randrange(1, 30)))
            for key, value in members.items():
                context = baggage.set_baggage(key, value, context)
            headers = {}
            propagator.inject(headers, context)
            sent.append(propagator.extract({key.lower(): [value] for key, value in headers.items()}, getter=Getter()))
            sets.append([(key.lower(), value) for key, value in headers.items()])
        for before, lines, headers in zip(sent, sets, road.ask(sets)):
            # The trace's own header is the proxy's now; the library reads baggage only beside one.
            headers = headers | {key: [value] for key, value in lines if "baggage" not in key and not key.startswith("uberctx-")}
            after = propagator.extract(headers, getter=Getter())
            equal(baggage.get_all(after), baggage.get_all(before), f"{lines}")

for each in PEERS:
    theirs_to_ours(each)
    mutated(each)
for each in (("baggage", W3CBaggagePropagator()), ("jaeger", JaegerPropagator()), ("ot-trace", OTTracePropagator())):
    baggage_passes(*each)
