"""The work that each product is given."""

from dataclasses import dataclass, field

MEBI = 1 << 20


@dataclass(frozen=True)
class Work:
    name: str
    title: str
    # Which door of a product it comes through: http1, http2, tls or tcp.
    door: str
    # What the load generator calls it.
    load: str
    connections: int = 1
    streams: int = 1
    # Its unit: a request, or a MiB of a body.
    bulk: bool = False
    # Open loop, at the rate of the command line.
    latency: bool = False
    # Only memory is looked at.
    memory: bool = False
    # Nothing is asked at all.
    empty: bool = False
    # What wrk or h2load can do as well.
    other: str = ""
    # Those that can trace make their spans of every request and send them to a receiver.
    traced: bool = False
    arguments: tuple = field(default=())

    @property
    def unit(self):
        return "MiB" if self.bulk else "request"

    @property
    def one_round(self):
        return self.memory

    @property
    def rounds(self):
        """Where the command line does not say."""
        return 15 if self.traced else 3


WORKS = [
    Work("http1-64", "HTTP/1.1 keep-alive, GET 128 bytes, 64 connections", "http1", "get", 64, other="wrk"),
    Work("http1-1000", "HTTP/1.1 keep-alive, GET 128 bytes, 1,000 connections", "http1", "get", 1000, other="wrk"),
    Work("http1-new", "HTTP/1.1, a new connection for each request, 16 at once", "http1", "close", 16),
    Work("http1-post", "HTTP/1.1 keep-alive, POST 16 KiB, 64 connections", "http1", "post", 64),
    Work("http1-latency", "HTTP/1.1 keep-alive at a fixed rate, 64 connections", "http1", "get", 64, latency=True),
    Work("down", "HTTP/1.1, 1 GiB down, one connection", "http1", "down", bulk=True),
    Work("up", "HTTP/1.1, 1 GiB up, one connection", "http1", "up", bulk=True),
    Work("h2c", "h2c, GET 128 bytes, 10 connections x 10 streams", "http2", "http2", 10, 10, other="h2load"),
    Work("h2c-latency", "h2c at a fixed rate, 10 connections x 10 streams", "http2", "http2", 10, 10, latency=True),
    Work("grpc-unary", "gRPC over h2c, unary, 128 bytes each way, 10 x 10", "http2", "unary", 10, 10),
    Work("grpc-stream", "gRPC over h2c, streams of 1,000 messages to and fro, 10 x 10, per message", "http2",
         "streaming", 10, 10),
    Work("traced-http1", "HTTP/1.1 as http1-64, every request traced and exported", "http1", "get", 64, traced=True),
    Work("traced-h2c", "h2c 10 x 10 as h2c, every request traced and exported", "http2", "http2", 10, 10, traced=True),
    Work("tls-http1", "gateway: TLS ends, HTTP/1.1 keep-alive, 64 connections", "tls", "get", 64, other="wrk"),
    Work("tls-http2", "gateway: TLS ends, HTTP/2, 10 x 10, HTTP/1.1 to the application", "tls", "http2", 10, 10,
         other="h2load"),
    Work("tcp-down", "opaque TCP, 1 GiB down, one connection", "tcp", "tcp-down", bulk=True),
    Work("tcp-up", "opaque TCP, 1 GiB up, one connection", "tcp", "tcp-up", bulk=True),
    Work("tcp-ping", "opaque TCP, 128 bytes to and fro, 64 connections", "tcp", "tcp-ping", 64),
    Work("empty", "just started, no connection yet", "http1", "", memory=True, empty=True),
    Work("idle-plain", "10,000 idle keep-alive connections, each asked once", "http1", "idle", 10000, memory=True),
    Work("idle-tls", "10,000 idle keep-alive connections under TLS, each asked once", "tls", "idle", 10000,
         memory=True),
]
