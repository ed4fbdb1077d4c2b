"""Other people's propagators behind one shape: what they write for a context, and what they read from a request's headers.

`write` returns headers by name, `read` a `Read` or nothing. All ids are numbers; SkyWalking's are texts."""

import base64
import dataclasses
import json
import logging
import os
import pathlib
import subprocess

# Only its propagators are wanted of ddtrace.
os.environ.update(DD_TRACE_ENABLED="false", DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_REMOTE_CONFIGURATION_ENABLED="false")

from ddtrace._trace.context import Context
from ddtrace.propagation import http as datadog
from opencensus.trace.propagation.binary_format import BinaryFormatPropagator
from opencensus.trace.span_context import SpanContext as CensusContext
from opencensus.trace.trace_options import TraceOptions
from opentelemetry import trace
from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.cloud_trace_propagator import CloudTraceFormatPropagator
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.ot_trace import OTTracePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from skywalking.trace.carrier import Carrier

# They log what they cannot read, which is half of what they are given.
logging.disable(logging.CRITICAL)

DENY, ACCEPT, DEBUG, OPEN = "deny", "accept", "debug", "open"


@dataclasses.dataclass(frozen=True)
class Read:
    trace: int | str
    parent: int | str | None
    sampled: bool
    # Where the propagator can say it.
    debug: bool | None = None


class OpenTelemetry:
    decisions = (DENY, ACCEPT)

    def __init__(self, name, format, propagator, width=128, means=None):
        self.name, self.format, self.propagator, self.width = f"OpenTelemetry {name}", format, propagator, width
        # What the headers say where that is more than was asked for.
        self.means = means or {}

    def write(self, ids, parent, decision):
        flags = trace.TraceFlags(decision == ACCEPT)
        span = trace.NonRecordingSpan(trace.SpanContext(ids, parent, False, flags))
        headers = {}
        self.propagator.inject(headers, trace.set_span_in_context(span))
        return {name.lower(): value for name, value in headers.items()}

    def read(self, headers):
        carrier = {name: list(values) for name, values in headers.items()}
        # In the case of each library's own spelling; HTTP has none.
        context = self.propagator.extract(carrier, getter=Getter())
        span = trace.get_current_span(context).get_span_context()
        return Read(span.trace_id, span.span_id, span.trace_flags.sampled) if span.is_valid else None


class JavaScript:
    """The same project's library for another language, in one process of Node.js for all formats."""

    decisions, means, node = (DENY, ACCEPT), {}, None

    def __init__(self, name, format, width=128):
        self.name, self.format, self.width = f"OpenTelemetry JavaScript {name}", format, width

    def write(self, ids, parent, decision):
        return self.ask({"write": [f"{ids:032x}", f"{parent:016x}", decision == ACCEPT]})

    def read(self, headers):
        found = self.ask({"read": headers})
        return Read(int(found[0], 16), int(found[1], 16), found[2]) if found else None

    def ask(self, what):
        if JavaScript.node is None:
            here, modules = pathlib.Path(__file__).parent, pathlib.Path(os.environ["SPANMESH_TARGET"], "peers/node/node_modules")
            JavaScript.node = subprocess.Popen(
                ["node", here / "propagators.js"], env=os.environ | {"NODE_PATH": modules}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        self.node.stdin.write(json.dumps({"format": self.format, **what}) + "\n")
        self.node.stdin.flush()
        return json.loads(self.node.stdout.readline())


class Getter:
    def get(self, carrier, key):
        return carrier.get(key.lower())

    def keys(self, carrier):
        return list(carrier)


class Datadog:
    decisions = (DENY, ACCEPT, DEBUG, OPEN)
    width, means = 128, {}
    PRIORITY = {DENY: 0, ACCEPT: 1, DEBUG: 2, OPEN: None}

    def __init__(self, name, format, propagator):
        self.name, self.format, self.propagator = f"ddtrace {name}", format, propagator
        if format == "w3c":
            self.decisions = (DENY, ACCEPT)

    def write(self, ids, parent, decision):
        headers = {}
        self.propagator._inject(Context(trace_id=ids, span_id=parent, sampling_priority=self.PRIORITY[decision]), headers)
        return {name.lower(): value for name, value in headers.items() if value}

    def read(self, headers):
        # WSGI hands several lines over as one, by commas.
        found = self.propagator._extract({name: ",".join(values) for name, values in headers.items()})
        if found is None or not found.trace_id:
            return None
        priority = found.sampling_priority
        debug = None if self.format == "w3c" else priority == 2
        return Read(found.trace_id, found.span_id, priority is not None and priority > 0, debug)


class Census:
    name, format, width, decisions = "OpenCensus binary", "binary", 128, (DENY, ACCEPT)
    means = {}
    propagator = BinaryFormatPropagator()

    def write(self, ids, parent, decision):
        context = CensusContext(trace_id=f"{ids:032x}", span_id=f"{parent:016x}", trace_options=TraceOptions("1" if decision == ACCEPT else "0"))
        return {"grpc-trace-bin": base64.b64encode(self.propagator.to_header(context)).decode().rstrip("=")}

    def read(self, headers):
        value = headers.get("grpc-trace-bin", [None])[0]
        try:
            data = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
            found = self.propagator.from_header(data)
        except (TypeError, ValueError):
            return None
        ids = int(found.trace_id, 16)
        parent = int(found.span_id or "0", 16)
        return Read(ids, parent, bool(int(found.trace_options.trace_options_byte) & 1)) if found.from_header and ids and parent else None


class SkyWalking:
    name, format, width, decisions = "apache-skywalking", "skywalking", None, (ACCEPT,)
    means = {}

    def write(self, ids, parent, decision):
        carrier = Carrier(f"{ids:032x}", f"{parent:016x}", "0", "sörvice", "instance@host", "/a/b", "10.0.0.1:80")
        return {"sw8": carrier.val}

    def read(self, headers):
        carrier = Carrier()
        try:
            carrier.val = headers.get("sw8", [""])[0]
            if not carrier.is_valid:
                return None
            # The library never looks at the first field: who sends at all has sampled.
            sampled = headers["sw8"][0].startswith("1-")
            return Read(int(carrier.trace_id, 16), int(carrier.segment_id, 16), sampled)
        except ValueError:
            return None


PEERS = [
    OpenTelemetry("tracecontext", "w3c", TraceContextTextMapPropagator()),
    Datadog("tracecontext", "w3c", datadog._TraceContext),
    OpenTelemetry("b3 single", "b3", B3SingleFormat()),
    Datadog("b3 single", "b3", datadog._B3SingleHeader),
    OpenTelemetry("b3 multi", "b3multi", B3MultiFormat()),
    Datadog("b3 multi", "b3multi", datadog._B3MultiHeader),
    OpenTelemetry("jaeger", "jaeger", JaegerPropagator(), means={ACCEPT: DEBUG}),
    OpenTelemetry("aws xray", "xray", AwsXRayPropagator()),
    OpenTelemetry("google cloud", "gcp", CloudTraceFormatPropagator()),
    OpenTelemetry("ot-trace", "ottrace", OTTracePropagator(), 64),
    JavaScript("tracecontext", "w3c"),
    JavaScript("b3 single", "b3"),
    JavaScript("b3 multi", "b3multi"),
    JavaScript("jaeger", "jaeger"),
    JavaScript("aws xray", "xray"),
    JavaScript("ot-trace", "ottrace", 64),
    Datadog("datadog", "datadog", datadog._DatadogMultiHeader),
    SkyWalking(),
    Census(),
]
