"""A receiver of spans: OTLP over gRPC and HTTP, decoded with Python's opentelemetry-proto."""

import concurrent.futures
import gzip
import http.server
import threading

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from harness import check


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans over gRPC and HTTP; JSON is not its business, since protobuf's JSON has ids in base64."""

    def __init__(self, lab):
        self.requests = []
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, server)
        self.grpc = server.add_insecure_port("127.0.0.1:0")
        server.start()
        lab.stack.callback(lambda: server.stop(None))
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                length = self.headers["content-length"]
                body = b"".join(self.chunks()) if length is None else self.rfile.read(int(length))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                check(self.headers["content-type"] == "application/x-protobuf", self.headers["content-type"])
                receiver.requests.append(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def chunks(self):
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def log_message(self, *_):
                pass

        web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http = web.server_port
        threading.Thread(target=web.serve_forever, daemon=True).start()
        lab.stack.callback(web.shutdown)

    def Export(self, request, context):
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))
