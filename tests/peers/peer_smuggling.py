"""Requests that try to smuggle another one, judged by the bytes that reach the origin: by a strict reader of our own, and by
h11. HAProxy gets the same, for a measure."""

import concurrent.futures
import re
import socket
import threading

import h11

from harness import case, check, equal
from servers import haproxy, ports
from smuggling_cases import cases

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Recorder:
    """An origin that keeps all bytes, and answers whatever is a whole message to the strict reader."""

    def __init__(self, lab):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.connections, self.lock = [], threading.Lock()
        lab.stack.callback(self.listener.close)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            kept = bytearray()
            with self.lock:
                self.connections.append(kept)
            threading.Thread(target=self.serve, args=(peer, kept), daemon=True).start()

    def serve(self, peer, kept):
        answered = 0
        with peer:
            peer.settimeout(20)
            try:
                while chunk := peer.recv(65536):
                    kept += chunk
                    count = len(read(bytes(kept))[0])
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * (count - answered))
                    answered = count
            except (OSError, ValueError):
                return


def line(data):
    head, end, rest = data.partition(b"\n")
    if not end:
        raise EOFError
    if not head.endswith(b"\r") or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", head[:-1]):
        raise ValueError(f"the line {head!r}")
    return head[:-1], rest


def fields(data):
    found = []
    while True:
        text, data = line(data)
        if not text:
            return found, data
        name, colon, value = text.partition(b":")
        if not colon or not TOKEN.fullmatch(name):
            raise ValueError(f"the field {text!r}")
        found.append((name.lower(), value.strip(b" \t")))


def message(data):
    start, rest = line(data)
    words = start.split(b" ")
    if len(words) != 3 or not TOKEN.fullmatch(words[0]) or words[2] != b"HTTP/1.1" or not re.fullmatch(rb"(/|\*$|[^/]+:\d+$)[^#]*", words[1]):
        raise ValueError(f"the request line {start!r}")
    found, rest = fields(rest)
    for name, value in found:
        # A field that some reader could take for one that frames.
        plain = re.sub(rb"[^a-z]", b"", name)
        if plain in (b"transferencoding", b"contentlength") and name not in (b"transfer-encoding", b"content-length"):
            raise ValueError(f"the name {name!r}")
    values = lambda wanted: [value for name, value in found if name == wanted]
    if len(values(b"host")) != 1:
        raise ValueError("the hosts")
    body = b""
    match values(b"content-length"), values(b"transfer-encoding"):
        case [], []:
            pass
        case [length], [] if re.fullmatch(rb"\d{1,18}", length):
            body, rest = rest[:int(length)], rest[int(length):]
            if len(body) < int(length):
                raise EOFError
        case [], [b"chunked"]:
            while True:
                text, rest = line(rest)
                if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", text):
                    raise ValueError(f"the chunk {text!r}")
                size = int(text, 16)
                if size == 0:
                    trailers, rest = fields(rest)
                    if any(name in (b"content-length", b"transfer-encoding", b"host") for name, _ in trailers):
                        raise ValueError(f"the trailers {trailers!r}")
                    break
                if len(rest) < size + 2:
                    raise EOFError
                if rest[size:size + 2] != b"\r\n":
                    raise ValueError("a chunk's end")
                body, rest = body + rest[:size], rest[size + 2:]
        case framing:
            raise ValueError(f"the framing {framing!r}")
    return (words[1], body), rest


def read(data):
    """All whole messages, and what is left behind them."""
    found = []
    while data:
        try:
            one, data = message(data)
        except EOFError:
            break
        found.append(one)
    return found, data


def by_h11(data):
    """The targets that h11 sees."""
    server, targets = h11.Connection(h11.SERVER), []
    server.receive_data(data)
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            targets.append(event.target)
        elif event is h11.PAUSED:
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            server.start_next_cycle()
        elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
            return targets


def judge(connections):
    """What is wrong with these bytes, or nothing."""
    for data in connections:
        try:
            found, _ = read(data)
        except ValueError as error:
            return str(error)
        if any(b"smuggled" in target for target, _ in found):
            return "the second request"
        if len(found) > 1:
            return f"{len(found)} messages"
        try:
            seen = by_h11(data)
        except h11.RemoteProtocolError as error:
            return f"h11: {error}"
        if found and seen != [target for target, _ in found]:
            return f"h11 reads {seen}, not {found}"
        if any(b"smuggled" in target for target in seen):
            return "the second request, to h11"
    return None


def attack(port, data):
    """Sends and listens until the end, or until nothing more comes."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(0.25)
        answer = b""
        try:
            client.sendall(data)
            while chunk := client.recv(65536):
                answer += chunk
        except OSError:
            pass
        return answer


def through(lab, start, everything):
    """The cases that came through, with the reason. Each attacker has a proxy's listener and an origin of its own."""
    results, lanes = [], 8
    recorders = [Recorder(lab) for _ in range(lanes)]
    fronts = start([recorder.port for recorder in recorders])

    def lane(number):
        recorder, port = recorders[number], fronts[number]
        for name, data in everything[number::lanes]:
            # A connection to the origin may be kept from the last case: what is new on it counts.
            before = [len(kept) for kept in recorder.connections]
            answer = attack(port, data)
            with recorder.lock:
                kept = [bytes(kept) for kept in recorder.connections]
            new = [data[before[at] if at < len(before) else 0:] for at, data in enumerate(kept)]
            wrong = judge([data for data in new if data])
            if wrong is None and answer.count(b"HTTP/1.1 200") > 1:
                wrong = "two answers"
            if wrong:
                results.append((name, wrong))

    with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
        for done in [pool.submit(lane, number) for number in range(lanes)]:
            done.result()
    return results


def listeners(lab, origins):
    names = [f"in{number}" for number in range(len(origins))]
    proxy = lab.proxy(
        [{"name": name, "mode": "inbound", "protocol": "http", "upstream": f"app{name}"} for name in names],
        [{"name": f"app{name}", "addresses": [f"127.0.0.1:{port}"], "protocol": "http1"} for name, port in zip(names, origins)],
        limits={"headerTimeout": "1s"},
    )
    return [proxy.port(name) for name in names]


def frontends(lab, origins):
    fronts = ports(len(origins))
    haproxy(lab, "".join(f"""
frontend f{front}
    bind 127.0.0.1:{front}
    default_backend b{front}
backend b{front}
    http-reuse always
    server s 127.0.0.1:{origin}
""" for front, origin in zip(fronts, origins)), ports=fronts)
    return fronts


@case("no request that carries another one comes through", direct=False)
def none(lab):
    lab.flags |= {"bad_request", "client_reset", "too_large", "idle_timeout", "upstream_closed"}
    everything = list(cases())
    check(len(everything) >= 500, f"{len(everything)} cases are too few")
    equal(through(lab, lambda origins: listeners(lab, origins), everything), [], f"of {len(everything)} came through")


@case("the judge of these requests sees what HAProxy lets through", needs=["haproxy"])
def measure(lab):
    found = through(lab, lambda origins: frontends(lab, origins), list(cases()))
    print(f"    HAProxy lets {len(found)} of {len(list(cases()))} through")
    check(found, "a judge that never finds anything proves nothing")
