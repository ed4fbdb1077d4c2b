"""grpcio on both sides: the four shapes of a call, deadlines, cancellation, statuses with details, large messages, keep-alive."""

import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpc_server import METHOD, SIZES, Server
from harness import case, check, equal, free_port, wait
from origins import H2, connect, pattern
from servers import certificates, gateway, nginx, ports

ROADS = ("clear", "tls")


class Client:
    """The four calls over one channel."""

    def __init__(self, lab, channel):
        lab.stack.callback(channel.close)
        self.channel = channel
        self.unary = channel.unary_unary(METHOD + "Unary")
        self.down = channel.unary_stream(METHOD + "Down")
        self.up = channel.stream_unary(METHOD + "Up")
        self.both = channel.stream_stream(METHOD + "Both")


def client(lab, server_port, road="clear", *options, up="h2"):
    # Channels to one address share a connection unless they are told not to.
    options = [*SIZES, ("grpc.use_local_subchannel_pool", 1), *options]
    if road == "tls":
        port = gateway(lab, [{"name": "app", "addresses": [f"127.0.0.1:{server_port}"], "protocol": "auto"}]).port("edge")
        trust = grpc.ssl_channel_credentials((certificates() / "ca.crt").read_bytes())
        return Client(lab, grpc.secure_channel(f"127.0.0.1:{port}", trust, [*options, ("grpc.ssl_target_name_override", "shop.example")]))
    return Client(lab, grpc.insecure_channel(f"127.0.0.1:{lab.front(server_port, up=up)}", options))


def failure(call):
    """The error that a call has to end with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


@case("unary, server, client and bidirectional streams bring every message in order", needs=["openssl"], down=ROADS)
def shapes(lab, down):
    link = client(lab, Server(lab).port, down)
    equal(link.unary(b"hello", timeout=10), b"hello", "unary")
    equal(link.unary(b"", timeout=10), b"", "an empty message")
    equal(list(link.down(b"count 500", timeout=10)), [b"%d" % number for number in range(500)], "server stream")
    equal(list(link.down(b"count 0", timeout=10)), [], "an empty stream")
    equal(link.up((b"x" * 1000 for _ in range(300)), timeout=10), b"300000", "client stream")
    equal(list(link.both((b"m%d" % number for number in range(300)), timeout=10)), [b"M%d" % number for number in range(300)], "both")


@case("protocol auto finds HTTP/2 for gRPC")
def auto(lab):
    equal(client(lab, Server(lab).port, up=None).unary(b"hello", timeout=10), b"hello", "unary")


@case("a bidirectional stream is a conversation: each answer comes before the next question", needs=["openssl"], down=ROADS)
def conversation(lab, down):
    link = client(lab, Server(lab).port, down)
    turn = threading.Semaphore(1)

    def questions():
        for number in range(50):
            check(turn.acquire(timeout=5), "the answer comes before the next question")
            yield b"q%d" % number

    count = 0
    for answer in link.both(questions(), timeout=20):
        equal(answer, b"Q%d" % count, "an answer")
        count += 1
        turn.release()
    equal(count, 50, "answers")


@case("a deadline ends the call at the client and cancels it at the server", needs=["openssl"], down=ROADS)
def deadline(lab, down):
    lab.flags |= {"client_reset"}
    server = Server(lab)
    link = client(lab, server.port, down)
    link.unary(b"warm", timeout=10)
    start = time.monotonic()
    error = failure(lambda: link.unary(b"sleep", timeout=0.5))
    equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED, "code")
    check(time.monotonic() - start < 1.5, "in time")
    check(server.cancelled.wait(2), "the server's call is cancelled")
    check(0 < server.seen[-1][1] < 0.6, f"grpc-timeout reached the server: {server.seen[-1][1]}")
    equal(link.unary(b"after", timeout=5), b"after", "the channel lives on")


@case("cancelling a stream at the client cancels it at the server", needs=["openssl"], down=ROADS)
def cancel(lab, down):
    lab.flags |= {"client_reset"}
    server = Server(lab)
    link = client(lab, server.port, down)
    call = link.down(b"endless", timeout=20)
    equal([next(call) for _ in range(3)], [b"tick"] * 3, "the first messages")
    call.cancel()
    check(server.cancelled.wait(2), "the server's call is cancelled")
    equal(call.code(), grpc.StatusCode.CANCELLED, "code")
    equal(link.unary(b"after", timeout=5), b"after", "the channel lives on")


@case("abort brings status, details and trailing metadata, without and after messages", needs=["openssl"], down=ROADS)
def abort(lab, down):
    link = client(lab, Server(lab).port, down)
    error = failure(lambda: link.unary(b"abort", timeout=10))
    equal((error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, "ungültig: 100 % ☃\nline"), "a trailers-only answer")
    equal([pair for pair in error.trailing_metadata() if pair[0].startswith("x-")], [("x-why", "because"), ("x-raw-bin", bytes(range(256)))], "trailing metadata")
    call = link.down(b"count 13", timeout=10)
    got = []
    error = failure(lambda: got.extend(call) or [got.append(message) for message in call])
    equal((error.code(), error.details()), (grpc.StatusCode.DATA_LOSS, "after messages"), "a status after messages")
    check(("x-late", "after messages") in [tuple(pair) for pair in error.trailing_metadata()], "trailing metadata after messages")


@case("metadata crosses both ways, binary and repeated too", needs=["openssl"], down=ROADS)
def metadata(lab, down):
    server = Server(lab)
    link = client(lab, server.port, down)
    sent = [("x-one", "1"), ("x-twice", "a"), ("x-twice", "b"), ("x-raw-bin", bytes(range(256))), ("x-empty-bin", b"")]
    message, call = link.unary.with_call(b"hello", timeout=10, metadata=sent)
    seen = [tuple(pair) for pair in server.seen[-1][2] if pair[0] in dict(sent)]
    equal(sorted(seen), sorted(sent), "what the server saw")
    equal([tuple(pair) for pair in call.initial_metadata() if pair[0].startswith("x-")], [("x-early", "1"), ("x-early-bin", b"\x00\xff")], "initial metadata")
    equal([tuple(pair) for pair in call.trailing_metadata() if pair[0].startswith("x-")], [("x-late", "2"), ("x-late-bin", bytes(range(256)))], "trailing metadata")
    check("grpcio" in server.seen[-1][0]["user-agent"] or "grpc-python" in server.seen[-1][0]["user-agent"], "the client's user-agent")


@case("a message of 16 MiB crosses both ways", needs=["openssl"], down=ROADS)
def large(lab, down):
    link = client(lab, Server(lab).port, down)
    message = b"large " + pattern(16 << 20)
    check(link.unary(message, timeout=30) == message, "the echo is the message")


@case("64 MiB in messages of 64 KiB reach a client that reads slowly at first")
def slow_reader(lab):
    link = client(lab, Server(lab).port)
    call = link.down(b"blocks 1000", timeout=30)
    time.sleep(1)
    count = 0
    for message in call:
        check(message == pattern(64 << 10), f"message {count} is whole")
        count += 1
    equal(count, 1000, "messages")


@case("health checks: Check answers, Watch streams each change", needs=["openssl"], down=ROADS)
def health_checks(lab, down):
    lab.flags |= {"client_reset"}
    server = Server(lab)
    link = client(lab, server.port, down)
    stub = health_pb2_grpc.HealthStub(link.channel)
    states = health_pb2.HealthCheckResponse
    server.health.set("cart", states.SERVING)
    equal(stub.Check(health_pb2.HealthCheckRequest(service="cart"), timeout=5).status, states.SERVING, "Check")
    equal(failure(lambda: stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=5)).code(), grpc.StatusCode.NOT_FOUND, "an unknown service")
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="cart"), timeout=10)
    equal(next(watch).status, states.SERVING, "Watch begins")
    server.health.set("cart", states.NOT_SERVING)
    equal(next(watch).status, states.NOT_SERVING, "Watch tells of the change")
    watch.cancel()


@case("an unknown method is UNIMPLEMENTED by the server's own word")
def unknown(lab):
    link = client(lab, Server(lab).port)
    error = failure(lambda: link.channel.unary_unary(METHOD + "Missing")(b"", timeout=5))
    equal((error.code(), error.details()), (grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), "code and details")


@case("a client's keep-alive pings are answered and not held against it", needs=["openssl"], down=ROADS)
def keep_alive(lab, down):
    lab.flags |= {"client_reset"}
    server = Server(lab, ("grpc.http2.min_recv_ping_interval_without_data_ms", 100), ("grpc.http2.max_ping_strikes", 0),
                    ("grpc.keepalive_permit_without_calls", 1))
    link = client(lab, server.port, down, ("grpc.keepalive_time_ms", 500), ("grpc.keepalive_timeout_ms", 1000),
                  ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0))
    gate = threading.Event()

    def questions():
        yield b"first"
        gate.wait(10)
        yield b"second"

    call = link.both(questions(), timeout=15)
    equal(next(call), b"FIRST", "before the silence")
    time.sleep(4)
    gate.set()
    equal(next(call), b"SECOND", "after 4 s of pings")


@case("no origin: UNAVAILABLE, as HTTP 200 with grpc-status", needs=["openssl"], direct=False, down=ROADS)
def unavailable(lab, down):
    lab.flags |= {"connect_failed", "no_healthy_endpoint"}
    link = client(lab, free_port(), down)
    start = time.monotonic()
    error = failure(lambda: link.unary(b"hello", timeout=10))
    equal(error.code(), grpc.StatusCode.UNAVAILABLE, f"code; details: {error.details()}")
    check(time.monotonic() - start < 4, "at once")
    if down == "clear":
        raw = H2(connect(lab.proxies[0].port("in")))
        stream = raw.open([(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", METHOD + "Unary"),
                           ("content-type", "application/grpc"), ("te", "trailers")], end=False)
        stream.send_data(bytes(5), end=True)
        got = stream.message()
        raw.close()
        fields = dict(got.headers + got.trailers)
        equal((got.status, fields.get("grpc-status")), (200, "14"), f"status and grpc-status of the proxy's own answer: {fields}")
        check(fields.get("content-type", "").startswith("application/grpc"), f"content-type: {fields.get('content-type')}")
        check(fields.get("grpc-message"), "grpc-message says why")


@case("a server that dies within a stream gives an error, not an end")
def dies(lab):
    lab.flags |= {"upstream_reset", "upstream_closed"}
    server = Server(lab)
    link = client(lab, server.port)
    call = link.down(b"endless", timeout=20)
    next(call)
    threading.Timer(0.3, lambda: server.server.stop(0)).start()
    error = failure(lambda: [message for message in call])
    check(error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), f"code {error.code()}")


@case("a server that ages its connections (GOAWAY every 300 ms) loses no call")
def ages(lab):
    server = Server(lab, ("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 5000))
    link = client(lab, server.port)
    ends, wrong, count = time.monotonic() + 3, [], [0]

    def ask():
        while time.monotonic() < ends:
            try:
                link.unary(b"hello", timeout=5)
                count[0] += 1
            except grpc.RpcError as error:
                wrong.append(f"{error.code()} {error.details()}")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    equal(wrong[:5], [], f"failed calls ({len(wrong)} beside {count[0]} good ones)")
    check(count[0] > 300, f"only {count[0]} calls")


@case("two hundred calls at once over one channel", needs=["openssl"], down=ROADS)
def many(lab, down):
    link = client(lab, Server(lab).port, down)
    calls = [link.unary.future(b"m%d" % number, timeout=20) for number in range(200)]
    equal([call.result() for call in calls], [b"m%d" % number for number in range(200)], "answers")


@case("gRPC through nginx's grpc_pass and the proxy", needs=["nginx"])
def behind_nginx(lab):
    server = Server(lab)
    front = lab.front(server.port, up="h2")
    port, = ports(1)
    nginx(lab, f"server {{ listen 127.0.0.1:{port} http2; client_max_body_size 0; location / {{ grpc_pass grpc://127.0.0.1:{front}; }} }}", ports=[port])
    link = Client(lab, grpc.insecure_channel(f"127.0.0.1:{port}", [*SIZES, ("grpc.use_local_subchannel_pool", 1)]))
    equal(link.unary(b"hello", timeout=10), b"hello", "unary")
    equal(list(link.down(b"count 100", timeout=10)), [b"%d" % number for number in range(100)], "server stream")
    equal(list(link.both((b"m%d" % number for number in range(100)), timeout=10)), [b"M%d" % number for number in range(100)], "both")
    equal(failure(lambda: link.unary(b"abort", timeout=10)).code(), grpc.StatusCode.FAILED_PRECONDITION, "an abort")
