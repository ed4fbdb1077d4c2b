"""What stands beside the proxies in the namespaces: an application, and a client for connections that are not HTTP.

    peer.py serve NAME LOG [http|greet|proxy:PORT]...    answers as NAME on both families, a line in LOG per connection
    peer.py talk ADDRESS PORT [MARK]                     waits for a greeting, sends a line, prints what came back
    peer.py stand-in run --config FILE                   carries bytes as a proxy would, to try the rules without one
"""

import json
import socket
import struct
import sys
import threading
import time

TIMEOUT = 5


def serve(name, log_path, *ports):
    log = open(log_path, "a", buffering=1)
    for port in ports:
        kind, number = port.split(":")
        answer = {"http": http, "greet": greet, "proxy": proxy}[kind]
        start(listen("::", int(number)), lambda link, peer, answer=answer: answer(link, peer, name, log))
    wait()


def http(link, peer, name, log):
    log.write(f"{peer}\n")
    with link.makefile("rb") as reader:
        while request := reader.readline():
            headers = read_headers(reader)
            body = json.dumps({"app": name, "peer": peer, "traceparent": headers.get("traceparent")}).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            link.sendall(head.encode() + body)
            if headers.get("connection", "").lower() == "close" or b"HTTP/1.0" in request:
                return


def proxy(link, peer, name, log):
    """A proxy that wants to know who asks, and answers for every target itself."""
    log.write(f"{peer}\n")
    tunnel = None
    with link.makefile("rb") as reader:
        while request := reader.readline():
            method, target = request.decode("latin-1").split()[:2]
            headers = read_headers(reader)
            if not tunnel and "proxy-authorization" not in headers:
                link.sendall(b"HTTP/1.1 407 Who asks\r\nproxy-authenticate: Basic realm=x\r\ncontent-length: 0\r\n\r\n")
            elif method == "CONNECT":
                tunnel = target
                link.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                body = json.dumps({"app": name, "target": target, "tunnel": tunnel}).encode()
                link.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)


def read_headers(reader):
    headers = {}
    while line := reader.readline().strip():
        key, _, value = line.decode("latin-1").partition(":")
        headers[key.lower()] = value.strip()
    return headers


def greet(link, peer, name, log):
    """Speaks first, as mail and database servers do."""
    log.write(f"{peer}\n")
    link.sendall(f"220 {name} at your service\r\n".encode())
    link.sendall(b"250 " + link.recv(1000))


def talk(address, port, mark=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(TIMEOUT)
        if mark:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark, 0))
        link.connect((address, int(port)))
        received = link.recv(1000)
        link.sendall(b"hello\r\n")
        link.shutdown(socket.SHUT_WR)
        while piece := link.recv(1000):
            received += piece
    print(received.decode())


def stand_in(_run, _config, path):
    """The data path in small: where to, whether allowed, bytes both ways, a line in the log."""
    with open(path) as file:
        config = json.load(file)
    log = open(config["telemetry"]["accessLog"]["to"], "a", buffering=1)
    own = [address(part["address"]) for part in [config["admin"], config["status"], *config["listeners"]]]
    ports = {port for _, port in own}
    for listener in config["listeners"]:
        def carry(link, peer, listener=listener):
            original = original_destination(link)
            local = link.getsockname()[0].removeprefix("::ffff:")
            line = {"listener": listener["name"], "peer": peer, "originalDestination": f"{original[0]} {original[1]}"}
            inbound = listener["mode"] == "inbound"
            # A redirect to this pod leaves the address as it was, one of something else does not.
            allowed = original[1] not in ports and (original[0] == local if inbound else original[0] != local)
            if allowed:
                line["flag"] = forward(link, original)
            else:
                line["flag"] = "denied"
            log.write(json.dumps(line) + "\n")

        start(listen(*address(listener["address"])), carry)
    start(listen(*address(config["status"]["address"])), status)
    start(listen(*address(config["admin"]["address"])), lambda link, peer: None)
    wait()


def status(link, _peer):
    link.recv(1000)
    link.sendall(b"HTTP/1.0 200 OK\r\n\r\n")


def original_destination(link):
    local = link.getsockname()[0]
    if local.startswith("::ffff:"):
        raw = link.getsockopt(socket.SOL_IP, 80, 16)
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack_from("!H", raw, 2)[0]
    raw = link.getsockopt(socket.IPPROTO_IPV6, 80, 28)
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from("!H", raw, 2)[0]


def forward(link, original):
    try:
        origin = socket.create_connection(original, TIMEOUT)
    except OSError:
        return "connect_failed"
    back = threading.Thread(target=copy, args=(origin, link), daemon=True)
    back.start()
    copy(link, origin)
    back.join()
    origin.close()
    return "ok"


def copy(source, sink):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def listen(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def start(listener, handle):
    def one(link, peer):
        link.settimeout(60)
        with link:
            try:
                handle(link, peer)
            except OSError:
                pass

    def accept():
        while True:
            link, peer = listener.accept()
            threading.Thread(target=one, args=(link, peer[0].removeprefix("::ffff:")), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def wait():
    while True:
        time.sleep(60)


{"serve": serve, "talk": talk, "stand-in": stand_in}[sys.argv[1]](*sys.argv[2:])
