"""SIGTERM under load: what is in flight finishes, everyone is told, the proxy leaves in time."""

import http.client
import subprocess
import threading
import time

import grpc
import websockets.exceptions
import websockets.sync.client

from clients import VERSION
from grpc_server import METHOD, Server
from harness import PROTOCOL, case, check, equal, wait
from origins import H2, Http, connect, read_until
from servers import websocket_server

BOTH = ("h1", "h2")


def proxy_for(lab, port, up=None, seconds=4):
    return lab.proxy([{"name": "in", "mode": "inbound", "upstream": "app"}],
                     [{"name": "app", "addresses": [f"127.0.0.1:{port}"], "protocol": PROTOCOL[up]}], drain={"timeout": f"{seconds}s"})


@case("requests in flight finish and HTTP/1.1 clients are told to close", direct=False, up=BOTH)
def in_flight(lab, up):
    proxy = proxy_for(lab, Http(lab, up).port, up)
    peers = [connect(proxy.port("in")) for _ in range(10)]
    for peer in peers:
        peer.sendall(b"GET /slow/1200 HTTP/1.1\r\nhost: a\r\n\r\n")
    time.sleep(0.4)
    proxy.terminate()
    for peer in peers:
        head = read_until(peer, b"\r\n\r\n").lower()
        check(head.startswith(b"http/1.1 200") and b"connection: close" in head, f"200 with Connection: close (RFC 9112 9.6), not {head}")
        equal(read_until(peer, b"slow\n"), b"slow\n", "the body")
        equal(peer.recv(1), b"", "the end of the connection")
    equal(proxy.ended(6), 0, "exit code")


@case("curl's answers finish while the proxy leaves", needs=["curl"], direct=False, down=BOTH, up=BOTH)
def curls(lab, down, up):
    proxy = proxy_for(lab, Http(lab, up).port, up)
    url = f"http://127.0.0.1:{proxy.port('in')}/slow/1200"
    clients = [subprocess.Popen(["curl", "-sS", "--max-time", "10", VERSION[down], url], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(5)]
    time.sleep(0.6)
    proxy.terminate()
    for client in clients:
        out, err = client.communicate(timeout=12)
        equal((client.returncode, out), (0, b"slow\n"), f"curl's exit code and body {err.decode()}")
    equal(proxy.ended(6), 0, "exit code")


@case("an HTTP/2 client sees GOAWAY and its streams finish", direct=False, up=BOTH)
def goaway(lab, up):
    proxy = proxy_for(lab, Http(lab, up).port, up)
    link = H2(connect(proxy.port("in")))
    head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/slow/1200")]
    streams = [link.open(head) for _ in range(10)]
    time.sleep(0.4)
    proxy.terminate()
    wait(lambda: link.goaway, "GOAWAY (RFC 9113 6.8)", timeout=2)
    equal(int(link.goaway.error_code), 0, "NO_ERROR")
    for stream in streams:
        got = stream.message(timeout=5)
        equal((got.status, bytes(got.body)), (200, b"slow\n"), "an answer")
    equal(proxy.ended(6), 0, "exit code")


@case("kept connections under load end between answers, never within one", direct=False)
def load(lab):
    lab.flags |= {"client_reset"}
    proxy = proxy_for(lab, Http(lab, "h1").port, "h1")
    torn, told, count, closed = [], [], [0], []
    ends = time.monotonic() + 8

    def ask():
        link = http.client.HTTPConnection("127.0.0.1", proxy.port("in"), timeout=5)
        link.connect()
        link.auto_open = 0
        while time.monotonic() < ends:
            try:
                link.request("GET", "/bytes/3000")
                answer = link.getresponse()
                body = answer.read()
            except (http.client.RemoteDisconnected, http.client.NotConnected, ConnectionResetError, BrokenPipeError) as error:
                return closed.append(repr(error))
            except Exception as error:
                return torn.append(repr(error))
            count[0] += 1
            if answer.status != 200 or len(body) != 3000:
                torn.append((answer.status, len(body)))
            if answer.headers.get("connection", "").lower() == "close":
                return told.append(1)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    proxy.terminate()
    for thread in threads:
        thread.join(12)
    equal(proxy.ended(6), 0, "exit code")
    equal(torn, [], "torn answers")
    check(count[0] > 200, f"only {count[0]} answers")
    equal((len(told), closed), (16, []), "clients that were told to close, and those that met a closed connection")


@case("a request that never ends does not hold the proxy beyond its drain timeout", needs=["curl"], direct=False, down=BOTH)
def deadline(lab, down):
    lab.flags |= {"draining", "client_reset"}
    proxy = proxy_for(lab, Http(lab, "h1").port, "h1", seconds=2)
    client = subprocess.Popen(["curl", "-sSN", "--max-time", "20", VERSION[down], f"http://127.0.0.1:{proxy.port('in')}/events/60"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lab.stack.callback(client.kill)
    client.stdout.readline()
    start = time.monotonic()
    proxy.terminate()
    equal(proxy.ended(6), 0, "exit code")
    took = time.monotonic() - start
    check(1.5 < took < 4, f"it left after {took:.1f} s, its timeout is 2 s")
    check(client.wait(5) != 0, "curl tells of a cut body")


@case("an idle proxy leaves at once, idle connections of clients notwithstanding", direct=False)
def idle(lab):
    proxy = proxy_for(lab, Http(lab, "h1").port, "h1", seconds=20)
    peer = connect(proxy.port("in"))
    peer.sendall(b"GET /bytes/3 HTTP/1.1\r\nhost: a\r\n\r\n")
    read_until(peer, b"\r\n\r\n")
    link = H2(connect(proxy.port("in")))
    wait(lambda: link.settings, "SETTINGS")
    start = time.monotonic()
    proxy.terminate()
    equal(proxy.ended(10), 0, "exit code")
    check(time.monotonic() - start < 4, f"it took {time.monotonic() - start:.1f} s")


@case("a call and a WebSocket in progress may finish their talk", direct=False)
def talks(lab):
    server = Server(lab)
    proxy = lab.proxy([{"name": "rpc", "mode": "inbound", "upstream": "rpc"}, {"name": "ws", "mode": "inbound", "upstream": "ws"}],
                      [{"name": "rpc", "addresses": [f"127.0.0.1:{server.port}"], "protocol": "http2"},
                       {"name": "ws", "addresses": [f"127.0.0.1:{websocket_server(lab)}"]}], drain={"timeout": "6s"})
    channel = grpc.insecure_channel(f"127.0.0.1:{proxy.port('rpc')}")
    lab.stack.callback(channel.close)
    gate = threading.Event()

    def questions():
        yield b"one"
        gate.wait(10)
        yield b"two"

    call = channel.stream_stream(METHOD + "Both")(questions(), timeout=15)
    equal(next(call), b"ONE", "before SIGTERM")
    link = websockets.sync.client.connect(f"ws://127.0.0.1:{proxy.port('ws')}/")
    link.send("one")
    equal(link.recv(5), "one", "before SIGTERM")
    proxy.terminate()
    time.sleep(1)
    gate.set()
    equal(list(call), [b"TWO"], "the call after SIGTERM")
    link.send("two")
    equal(link.recv(5), "two", "the WebSocket after SIGTERM")
    link.close()
    equal(proxy.ended(7), 0, "exit code")


@case("/ready says no while the proxy drains, and new clients are not left waiting", direct=False)
def ready(lab):
    proxy = proxy_for(lab, Http(lab, "h1").port, "h1")
    peer = connect(proxy.port("in"))
    peer.sendall(b"GET /slow/2000 HTTP/1.1\r\nhost: a\r\n\r\n")
    time.sleep(0.3)
    check(proxy.ready(), "ready before SIGTERM")
    proxy.terminate()
    wait(lambda: not proxy.ready(), "/ready no longer says 200", timeout=1)
    check(read_until(peer, b"\r\n\r\n").startswith(b"HTTP/1.1 200"), "the answer in flight")
    equal(proxy.ended(6), 0, "exit code")
