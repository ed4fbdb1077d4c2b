"""The websockets package on both sides: messages, fragments, pings, close codes, compression, silence; in clear and over TLS."""

import socket
import threading
import time

import websockets.exceptions
import websockets.sync.client

from harness import case, check, equal, wait
from origins import pattern
from servers import client_tls, gateway, websocket_server

ROADS = ("clear", "tls")
LARGE = 16 << 20


def connect(lab, port, road, **options):
    """A client, in clear through a sidecar's listener or over TLS through a gateway's."""
    if road == "tls":
        edge = gateway(lab, [{"name": "app", "addresses": [f"127.0.0.1:{port}"]}]).port("edge")
        raw = socket.create_connection(("127.0.0.1", edge), 10)
        link = websockets.sync.client.connect(f"wss://shop.example:{edge}/chat", sock=raw, ssl=client_tls("http/1.1"), max_size=LARGE, **options)
    else:
        link = websockets.sync.client.connect(f"ws://127.0.0.1:{lab.front(port)}/chat", max_size=LARGE, **options)
    lab.stack.callback(link.close)
    return link


@case("text, binary and fragments come back as they were sent", needs=["openssl"], down=ROADS)
def messages(lab, down):
    link = connect(lab, websocket_server(lab), down)
    for message in ("hello", "größer ☃", b"\x00\xff\x80", "", b"", "a" * 126, b"b" * 65_536):
        link.send(message)
        equal(link.recv(10), message, "an echo")
    link.send(["one ", "two ", "three"])
    equal(link.recv(10), "one two three", "fragments")
    link.send([b"1", b"2" * 70_000])
    equal(link.recv(10), b"1" + b"2" * 70_000, "binary fragments")


@case("fragments arrive as fragments, each when it was sent")
def fragments(lab):
    arrived = []

    def handle(link):
        for fragment in link.recv_streaming():
            arrived.append((fragment, time.monotonic()))
        link.send("done")

    def slowly():
        for part in ("one", "two", "three"):
            yield part
            time.sleep(0.3)

    link = connect(lab, websocket_server(lab, handle), "clear", compression=None)
    link.send(slowly())
    equal(link.recv(10), "done", "the answer")
    equal([part for part, _ in arrived if part], ["one", "two", "three"], "the fragments")
    check(arrived[1][1] - arrived[0][1] > 0.2, "no fragment waits for the next one")


@case("a ping of either side is answered by the other side itself")
def pings(lab):
    answered = threading.Event()

    def handle(link):
        pong = link.ping(b"from the server")
        if pong.wait(5):
            answered.set()
        for message in link:
            link.send(message)

    link = connect(lab, websocket_server(lab, handle, ping_interval=None), "clear", ping_interval=None)
    pong = link.ping(b"from the client")
    check(pong.wait(5), "the server answers the client's ping")
    link.send("x")
    link.recv(5)
    check(answered.wait(5), "the client answers the server's ping")


@case("close codes and reasons cross both ways")
def closes(lab):
    seen = []

    def handle(link):
        try:
            if link.recv(10) == "close":
                link.close(4001, "the server's reason")
            else:
                link.recv(10)
        except websockets.exceptions.ConnectionClosed as closed:
            seen.append((closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else None)

    port = lab.front(websocket_server(lab, handle))
    link = websockets.sync.client.connect(f"ws://127.0.0.1:{port}/")
    link.send("close")
    try:
        link.recv(5)
        raise AssertionError("the server's close ends recv")
    except websockets.exceptions.ConnectionClosed as closed:
        equal((closed.rcvd.code, closed.rcvd.reason), (4001, "the server's reason"), "the server's close")
    link = websockets.sync.client.connect(f"ws://127.0.0.1:{port}/")
    link.send("stay")
    link.close(4002, "the client's reason")
    wait(lambda: seen, "the server sees the client's close", timeout=5)
    equal(seen, [(4002, "the client's reason")], "the client's close")


@case("a client that vanishes is seen by the server as gone without a close")
def vanishes(lab):
    lab.flags |= {"client_reset"}
    seen = []

    def handle(link):
        try:
            link.recv(10)
        except websockets.exceptions.ConnectionClosed as closed:
            seen.append(closed.rcvd)

    link = connect(lab, websocket_server(lab, handle), "clear", ping_interval=None)
    link.socket.shutdown(socket.SHUT_RDWR)
    wait(lambda: seen, "the server sees the end", timeout=5)
    equal(seen, [None], "no close frame")


@case("1 MiB and 8 MiB messages come back whole", needs=["openssl"], down=ROADS)
def large(lab, down):
    link = connect(lab, websocket_server(lab), down, compression=None)
    for size in (1 << 20, 8 << 20):
        link.send(pattern(size))
        equal(link.recv(20) == pattern(size), True, f"an echo of {size} bytes")
    link.send("ü" * (1 << 19))
    equal(link.recv(20) == "ü" * (1 << 19), True, "1 MiB of text")


@case("permessage-deflate is negotiated by the ends")
def deflate(lab):
    link = connect(lab, websocket_server(lab), "clear", compression="deflate")
    equal([extension.name for extension in link.protocol.extensions], ["permessage-deflate"], "extensions")
    check("sec-websocket-extensions" in {key.lower() for key in link.response.headers}, "the server's own header")
    for message in ("compressible " * 10_000, pattern(1 << 20)):
        link.send(message)
        equal(link.recv(10) == message, True, "an echo")


@case("subprotocol, origin and headers of the handshake cross")
def handshake(lab):
    seen = []

    def handle(link):
        seen.append(link.request)
        link.send("ok")

    link = connect(lab, websocket_server(lab, handle, subprotocols=["chat.v2"]), "clear", subprotocols=["chat.v1", "chat.v2"],
                   origin="http://a.example", additional_headers={"x-mine": "1"})
    equal((link.recv(5), link.subprotocol), ("ok", "chat.v2"), "message and subprotocol")
    equal((seen[0].path, seen[0].headers["origin"], seen[0].headers["x-mine"]), ("/chat", "http://a.example", "1"), "what the server saw")


@case("a server that refuses the handshake is heard")
def refused(lab):
    def refuse(link, request):
        return link.respond(403, "not you\n")

    port = lab.front(websocket_server(lab, process_request=refuse))
    try:
        websockets.sync.client.connect(f"ws://127.0.0.1:{port}/")
        raise AssertionError("the handshake fails")
    except websockets.exceptions.InvalidStatus as error:
        equal((error.response.status_code, bytes(error.response.body)), (403, b"not you\n"), "the server's answer")


@case("a silent connection outlives the pool's idle time", needs=["openssl"], down=ROADS)
def silent(lab, down):
    link = connect(lab, websocket_server(lab, ping_interval=None), down, ping_interval=None)
    link.send("before")
    equal(link.recv(5), "before", "an echo")
    # Idle HTTP/1 connections to an application live 4 s.
    time.sleep(5.5)
    link.send("after")
    equal(link.recv(5), "after", "an echo after silence")


@case("a hundred connections at once")
def hundred(lab):
    port = lab.front(websocket_server(lab))
    links = [websockets.sync.client.connect(f"ws://127.0.0.1:{port}/") for _ in range(100)]
    for number, link in enumerate(links):
        link.send(str(number))
    equal([link.recv(10) for link in links], [str(number) for number in range(100)], "echoes")
    for link in links:
        link.close()


@case("a server that speaks right after its handshake loses no byte")
def first_words(lab):
    def handle(link):
        for number in range(50):
            link.send(str(number))

    port = lab.front(websocket_server(lab, handle))
    for _ in range(20):
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/") as link:
            equal([link.recv(5) for _ in range(50)], [str(number) for number in range(50)], "messages")
