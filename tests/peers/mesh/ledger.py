"""An application without any tracing: it copies the headers that its callers ask it to copy. Called with its port."""

import http.server
import json
import sys
import urllib.request

COPIED = ("traceparent", "tracestate", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-request-id")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        copied = {name: self.headers[name] for name in COPIED if name in self.headers}
        with urllib.request.urlopen(urllib.request.Request("http://shop.mesh/rates", headers=copied), timeout=10) as answer:
            self.answer(200, {"rate": json.load(answer), "copied": sorted(copied)})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(404, {})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
