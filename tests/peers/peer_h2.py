"""The Python packages h2 and h11 as client and as judge: what no command-line client shows: trailers, resets, 100-continue over
HTTP/2, extended CONNECT, one stalled stream among many."""

import sys
import threading
import time

import h2.errors
import h2.events
import h2.settings
import wsproto.connection
import wsproto.events

from harness import case, check, equal, free_port, wait
from origins import H1, H2, Answer, Http, Origin, checksum, connect, pattern, read_all, text
from servers import websocket_server

BOTH = ("h1", "h2")


def client(port, **options):
    return H2(connect(port), **options)


def head(method, path, *more):
    return [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path), *more]


@case("request and response trailers cross the hop", down=("h2",), up=BOTH)
def trailers(lab, down, up):
    origin = Http(lab, up)
    link = client(lab.front(origin.port, up=up))
    stream = link.open(head("POST", "/trailers", ("te", "trailers"), ("trailer", "x-sum")), end=False)
    stream.send_data(b"hello")
    stream.send_headers([("x-sum", "42")], end=True)
    got = stream.message()
    equal((got.status, bytes(got.body), got.trailers), (200, b"with trailers\n", [("x-checksum", "abc")]), "the answer")
    equal((origin.seen[0].body, origin.seen[0].trailers), (b"hello", [("x-sum", "42")]), "content and trailers at the origin")
    equal(origin.seen[0].values("te"), ["trailers"], "TE: trailers at the origin")
    link.close()


@case("an HTTP/2 client that expects 100 gets none, and is served when its own wait is over", down=("h2",), up=("h1",), direct=False)
def continued(lab, down, up):
    def handle(peer, _):
        link = H1(peer)
        link.head()
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, _ = link.body()
        link.answer(Answer(200, [("x-sha256", checksum(body)), ("content-length", "0")]))

    link = client(lab.front(Origin(lab, handle).port, up=up))
    stream = link.open(head("POST", "/", ("expect", "100-continue"), ("content-length", "5")), end=False)
    # RFC 9110 10.1.1: a client does not wait for ever. The engine has no way to send it a 100.
    time.sleep(0.5)
    stream.send_data(b"hello", end=True)
    got = stream.message()
    equal((got.status, dict(got.headers)["x-sha256"]), (200, checksum(b"hello")), "the answer")
    link.close()


@case("an origin's refusal reaches an HTTP/2 client that waits to be asked", down=("h2",), up=("h1",), direct=False)
def refused(lab, down, up):
    lab.flags |= {"client_reset"}
    def handle(peer, _):
        H1(peer).head()
        peer.sendall(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
        peer.recv(1)

    link = client(lab.front(Origin(lab, handle).port, up=up))
    stream = link.open(head("POST", "/", ("expect", "100-continue"), ("content-length", "5")), end=False)
    event = stream.next(h2.events.InformationalResponseReceived, h2.events.ResponseReceived, timeout=5)
    check(isinstance(event, h2.events.ResponseReceived) and dict(text(event.headers))[":status"] == "417", f"417, not {event}")
    link.close()


@case("CANCEL of the client stays CANCEL at the origin", down=("h2",), up=("h2",))
def cancel(lab, down, up):
    lab.flags |= {"client_reset"}
    codes, began = [], threading.Event()

    def handle(stream):
        stream.next(h2.events.RequestReceived)
        began.set()
        event = stream.next(h2.events.StreamReset)
        codes.append(event and int(event.error_code))

    def serve(peer, _):
        H2(peer, server=handle).join()

    link = client(lab.front(Origin(lab, serve).port, up=up))
    stream = link.open(head("GET", "/"))
    check(began.wait(5), "the request reaches the origin")
    stream.reset(h2.errors.ErrorCodes.CANCEL)
    wait(lambda: codes, "the origin sees the reset", timeout=5)
    equal(codes, [int(h2.errors.ErrorCodes.CANCEL)], "the reason (RFC 9113 7)")
    link.close()


@case("a reset of the origin within the body reaches the client as a reset", down=("h2",), up=("h2",))
def origin_resets(lab, down, up):
    lab.flags |= {"upstream_reset"}
    def handle(stream):
        stream.next(h2.events.StreamEnded)
        stream.send_headers([(":status", "200")])
        stream.send_data(b"some")
        time.sleep(0.2)
        stream.reset(h2.errors.ErrorCodes.CANCEL)

    link = client(lab.front(Origin(lab, lambda peer, _: H2(peer, server=handle).join()).port, up=up))
    got = link.open(head("GET", "/")).message()
    equal((got.status, bytes(got.body)), (200, b"some"), "what came before")
    equal(got.reset, int(h2.errors.ErrorCodes.CANCEL), "the reason")
    check(not link.closed, "the connection lives on")
    link.close()


@case("a stream refused by the origin before it worked on it is tried again", down=("h2",), up=("h2",), direct=False)
def refused_stream(lab, down, up):
    turns = []

    def handle(stream):
        stream.next(h2.events.StreamEnded)
        turns.append(1)
        if len(turns) == 1:
            stream.reset(h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            stream.answer(Answer(200, [("content-length", "0")]))

    origin = Origin(lab, lambda peer, _: H2(peer, server=handle).join())
    proxy = lab.proxy([{"name": "edge", "mode": "gateway", "routes": [
        {"name": "all", "match": {"pathPrefix": "/"}, "upstream": "app", "retry": {"attempts": 2, "on": ["refusedStream"]}}]}],
        [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": "http2"}])
    link = client(proxy.port("edge"))
    got = link.open(head("GET", "/")).message()
    equal((got.status, len(turns)), (200, 2), "status, and attempts (RFC 9113 8.7)")
    link.close()


@case("a stalled stream of a hundred leaves the others their throughput", down=("h2",), up=BOTH, direct=False)
def stalled(lab, down, up):
    lab.flags |= {"client_reset"}
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    link = client(port, credit=False, settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
    link.open(head("GET", f"/bytes/{8 << 20}"))
    time.sleep(0.5)
    others = [link.open(head("GET", "/bytes/2000")) for _ in range(99)]
    start = time.monotonic()
    for stream in others:
        got = stream.message(timeout=5)
        equal((got.status, len(got.body)), (200, 2000), "another stream's answer")
    check(time.monotonic() - start < 3, f"99 small answers took {time.monotonic() - start:.2f} s")
    link.close()


@case("an informational answer and many fields cross the hop whole", down=("h2",), up=BOTH)
def fields(lab, down, up):
    origin = Http(lab, up)
    link = client(lab.front(origin.port, up=up))
    many = [(f"many-{number}", str(number) * 20) for number in range(80)]
    stream = link.open(head("GET", "/echo", *many, ("cookie", "a=1"), ("cookie", "b=2")))
    equal(stream.message().status, 200, "status")
    equal([pair for pair in origin.seen[0].headers if pair[0].startswith("many-")], many, "the fields")
    cookies = origin.seen[0].values("cookie")
    equal("; ".join(cookies), "a=1; b=2", "the cookies")
    if up == "h1":
        equal(len(cookies), 1, "Cookie fields towards HTTP/1 (RFC 9113 8.2.3)")
    link.close()


@case("too large a head is answered with 431, and the connection goes on", down=("h2",), direct=False)
def large_head(lab, down):
    lab.flags |= {"too_large"}
    link = client(lab.front(Http(lab, "h1").port, up="h1"))
    equal(link.open(head("GET", "/echo", ("x-large", "a" * 66_000))).message().status, 431, "status (RFC 6585 5)")
    equal(link.open(head("GET", "/echo", ("x-large", "a" * 30_000))).message().status, 200, "status of half the limit")
    link.close()
    wait(lambda: [line for line in lab.proxies[0].requests() if line["flag"] == "too_large"], "a refused request has its line in the access log", timeout=2)


@case("the origin's GOAWAY loses no request", down=("h2",), up=("h2",), direct=False)
def goaway(lab, down, up):
    """The origin ends each of its connections after 25 streams, as RFC 9113 6.8 describes."""
    lock, links = threading.Lock(), {}

    def serve(peer, _):
        count = [0]

        def handle(stream):
            message = stream.message()
            with lock:
                count[0] += 1
                if count[0] == 25:
                    with stream.link.turn:
                        stream.link.h2.close_connection(last_stream_id=stream.link.h2.highest_inbound_stream_id)
                        stream.link.flush()
            if message.reset is None:
                stream.answer(Answer(200, [("content-length", "2")], [b"ok"]))

        H2(peer, server=handle).join()

    origin = Origin(lab, serve)
    link = client(lab.front(origin.port, up=up))
    for _ in range(20):
        streams = [link.open(head("GET", "/")) for _ in range(10)]
        equal([stream.message(timeout=10).status for stream in streams], [200] * 10, "statuses")
    check(origin.connections >= 5, f"connections at the origin: {origin.connections}")
    link.close()


def websocket(stream):
    """An echo of one message and a close, inside an open CONNECT stream."""
    frames = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
    stream.send_data(frames.send(wsproto.events.TextMessage(data="über h2")))

    def receive():
        while True:
            for event in frames.events():
                return event
            event = stream.next(h2.events.DataReceived, h2.events.StreamReset, h2.events.StreamEnded, timeout=10)
            check(isinstance(event, h2.events.DataReceived), f"data, not {event}")
            frames.receive_data(event.data)

    equal(receive().data, "über h2", "the echo")
    stream.send_data(frames.send(wsproto.events.CloseConnection(code=4000, reason="done")))
    equal(receive().code, 4000, "the close code that comes back")


@case("extended CONNECT carries a WebSocket to an HTTP/1.1 server", down=("h2",), up=("h1",), direct=False)
def extended_connect_h1(lab, down, up):
    stream = connect_websocket(client(lab.front(websocket_server(lab), up="h1")))
    stream.send_data(end=True)
    event = stream.next(h2.events.StreamEnded, h2.events.StreamReset, timeout=5)
    check(isinstance(event, h2.events.StreamEnded), f"the end of the stream, not {event}")
    stream.link.close()


@case("extended CONNECT carries a WebSocket to hypercorn over HTTP/2", down=("h2",), up=("h2",))
def extended_connect_h2(lab, down, up):
    # hypercorn breaks off when a stream ends after its close frame, so the client leaves instead.
    lab.flags |= {"client_reset"}
    link = client(lab.front(hypercorn_echo(lab), up="h2"))
    connect_websocket(link).link.close()


def connect_websocket(link):
    wait(lambda: link.settings, "SETTINGS", timeout=5)
    equal(link.settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL), 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3)")
    stream = link.open([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a.example"),
                        (":path", "/chat"), ("sec-websocket-version", "13")], end=False)
    event = stream.next(h2.events.ResponseReceived, h2.events.StreamReset, timeout=10)
    check(isinstance(event, h2.events.ResponseReceived), f"an answer, not {event}")
    equal(dict(text(event.headers))[":status"], "200", "status (RFC 8441 5)")
    websocket(stream)
    return stream


def hypercorn_echo(lab):
    port = free_port()
    lab.write("echo.py", '''
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-version", scope["http_version"].encode())]})
        return await send({"type": "http.response.body", "body": b"hypercorn"})
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})
''')
    lab.spawn("hypercorn", [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "echo:app"], ports=[port])
    return port


@case("CONNECT on the forward proxy works over HTTP/2 too", down=("h2",), direct=False)
def connect_h2(lab, down):
    lab.flags |= {"client_reset"}
    origin = Http(lab, "h1")
    proxy = lab.proxy([{"name": "out", "mode": "outbound", "transparent": False}])
    link = client(proxy.port("out"))
    stream = link.open([(":method", "CONNECT"), (":authority", f"127.0.0.1:{origin.port}")], end=False)
    event = stream.next(h2.events.ResponseReceived, h2.events.StreamReset, timeout=10)
    check(isinstance(event, h2.events.ResponseReceived) and dict(text(event.headers))[":status"] == "200", f"200, not {event}")
    stream.send_data(b"GET /bytes/3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", end=True)
    got = stream.message()
    check(got.body.startswith(b"HTTP/1.1 200") and got.body.endswith(pattern(3)), f"the tunnel's bytes (RFC 9113 8.5): {got.body}")
    link.close()


@case("a message whose length is in doubt is refused and ends the connection", direct=False)
def doubtful(lab):
    lab.flags |= {"bad_request", "protocol_error", "too_large"}
    origin = Http(lab, "h1")
    port = lab.front(origin.port, up="h1", protocol="http")
    for fields in (b"content-length: 5\r\ncontent-length: 6", b"content-length: +5",
                   b"transfer-encoding: chunked, identity", b"transfer-encoding: xchunked", b"content-length : 5", b"x: 1\r\n folded"):
        with connect(port, timeout=5) as peer:
            peer.sendall(b"POST /smuggle HTTP/1.1\r\nhost: a\r\n" + fields + b"\r\n\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: a\r\n\r\n")
            answer = read_all(peer)
        check(answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")) and answer.count(b"HTTP/1.1") == 1, f"{fields}: {answer[:200]} (RFC 9112 6.3)")
    equal([request.target for request in origin.seen], [], "requests that reached the origin")


@case("a message with both Content-Length and chunks is refused, or read by its chunks; either way it is the last one", direct=False)
def both_lengths(lab):
    lab.flags |= {"bad_request", "protocol_error"}
    origin = Http(lab, "h1")
    port = lab.front(origin.port, up="h1", protocol="http")
    for fields in (b"content-length: 5\r\ntransfer-encoding: chunked", b"transfer-encoding: chunked\r\ncontent-length: 5"):
        with connect(port, timeout=5) as peer:
            peer.sendall(b"POST /both HTTP/1.1\r\nhost: a\r\n" + fields + b"\r\n\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: a\r\n\r\n")
            answer = read_all(peer)
        equal(answer.count(b"HTTP/1.1"), 1, f"answers to {fields} (RFC 9112 6.3)\n{answer}")
    for request in origin.seen:
        equal((request.target, request.values("content-length")), ("/both", []), "what reaches the origin")
