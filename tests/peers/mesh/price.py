"""An application that speaks Zipkin's x-b3-* and nothing else, with spans of its own, by OpenTelemetry's SDK and B3 propagator.
Called with its port and where spans go."""

import http.server
import json
import os
import sys
import urllib.request

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

os.environ["no_proxy"] = "127.0.0.1"
provider = TracerProvider(resource=Resource.create({"service.name": "price"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[2]), schedule_delay_millis=100))
tracer, headers = provider.get_tracer("price"), B3MultiFormat()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        heard = {name.lower(): value for name, value in self.headers.items()}
        with tracer.start_as_current_span("price", headers.extract(heard), SpanKind.SERVER):
            said = {}
            with tracer.start_as_current_span("ledger", kind=SpanKind.CLIENT):
                headers.inject(said)
                with urllib.request.urlopen(urllib.request.Request("http://ledger.mesh/entries", headers=said), timeout=10) as answer:
                    entry = json.load(answer)
            body = json.dumps({"entry": entry, "heard": sorted(heard), "said": sorted(said)}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
