"""Small origins and clients in Python whose protocol is spoken by the h11 and h2 packages: they are the judges of what arrived.

One `app` answers for both protocols, so that a case has one body for every pair of them. What needs a conversation of its own
gives `Origin` a function that owns the connection.
"""

import dataclasses
import hashlib
import json
import queue
import socket
import ssl
import threading
import time
import urllib.parse

import h11
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings


@dataclasses.dataclass
class Request:
    protocol: str
    method: str
    target: str
    headers: list
    body: bytes
    trailers: list
    connection: int

    def values(self, name):
        return [value for key, value in self.headers if key == name]


@dataclasses.dataclass
class Answer:
    status: int = 200
    headers: list = dataclasses.field(default_factory=list)
    body: object = ()
    trailers: list = dataclasses.field(default_factory=list)


def pattern(size):
    """Bytes that repeat at no power of two, so that a piece lost or doubled changes the checksum."""
    block = bytes(range(251)) * 4096
    return (block * (size // len(block) + 1))[:size]


def checksum(content):
    return hashlib.sha256(content).hexdigest()


def app(request):
    """/echo tells what arrived; the other paths make an answer of the shape that they name."""
    url = urllib.parse.urlsplit(request.target)
    head, _, rest = url.path.lstrip("/").partition("/")
    if head == "status":
        return Answer(int(rest), [("etag", '"one"')] if rest == "304" else [])
    if head == "bytes":
        body = pattern(int(rest))
        return Answer(200, [("content-length", str(len(body))), ("content-type", "application/octet-stream")], [body])
    if head == "pieces":
        body = pattern(int(rest))
        return Answer(200, [], (body[at:at + 10_000] for at in range(0, len(body), 10_000)))
    if head == "slow":
        time.sleep(int(rest) / 1000)
        return Answer(200, [("content-length", "5")], [b"slow\n"])
    if head == "events":
        return Answer(200, [("content-type", "text/event-stream")], events(int(rest)))
    if head == "trailers":
        return Answer(200, [("trailer", "x-checksum")], [b"with trailers\n"], [("x-checksum", "abc")])
    text = json.dumps({
        "protocol": request.protocol, "method": request.method, "target": request.target, "headers": request.headers,
        "length": len(request.body), "sha256": checksum(request.body), "trailers": request.trailers,
    }).encode()
    return Answer(200, [("content-type", "application/json"), ("content-length", str(len(text)))], [text])


def events(count):
    for number in range(count):
        yield f"data: {number}\n\n".encode()
        time.sleep(0.3)


class Origin:
    """A listening socket; `handle(socket, number)` runs in a thread for each connection and owns it."""

    def __init__(self, lab, handle, tls=None):
        self.handle, self.tls = handle, tls
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.socket.getsockname()[1]
        self.connections, self.errors, self.open = 0, [], set()
        lab.origins.append(self)
        lab.stack.callback(self.close)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            peer.settimeout(30)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(peer, self.connections), daemon=True).start()

    def serve(self, peer, number):
        self.open.add(peer)
        try:
            if self.tls:
                peer = self.tls.wrap_socket(peer, server_side=True)
            with peer:
                self.handle(peer, number)
        except (ConnectionError, TimeoutError, ssl.SSLError, OSError):
            pass
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            self.open.discard(peer)

    def close(self):
        # Shutting down wakes the thread in accept; closing alone would leave the port open until it returned.
        for held in (self.socket, *self.open):
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            held.close()


class Http(Origin):
    """An origin that answers with `app` in one protocol and keeps each request that it saw."""

    def __init__(self, lab, protocol, answer=app, tls=None, settings=None):
        self.seen, self.answer, self.settings = [], answer, settings
        super().__init__(lab, self.h1 if protocol == "h1" else self.h2, tls)

    def h1(self, peer, number):
        link = H1(peer)
        while True:
            request = link.request(number)
            if request is None:
                return
            self.seen.append(request)
            link.answer(self.answer(request), request.method)
            if not link.again():
                return

    def h2(self, peer, number):
        def handle(stream):
            message = stream.message()
            if message.reset is not None:
                return
            pseudo = dict(pair for pair in message.headers if pair[0].startswith(":"))
            headers = [pair for pair in message.headers if not pair[0].startswith(":")]
            if ":authority" in pseudo:
                headers.insert(0, ("host", pseudo[":authority"]))
            request = Request("h2", pseudo[":method"], pseudo.get(":path", ""), headers, bytes(message.body), message.trailers, number)
            self.seen.append(request)
            stream.answer(self.answer(request), request.method)

        H2(peer, server=handle, settings=self.settings).join()


class H1:
    """The server's half of one HTTP/1 connection."""

    def __init__(self, peer):
        self.peer = peer
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)

    def event(self):
        while True:
            event = self.h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.h11.receive_data(self.peer.recv(1 << 18))

    def send(self, *events):
        self.peer.sendall(b"".join(self.h11.send(event) or b"" for event in events))

    def head(self):
        event = self.event()
        return event if isinstance(event, h11.Request) else None

    def body(self):
        """The rest of the message: its content and its trailers."""
        pieces = []
        while True:
            event = self.event()
            if isinstance(event, h11.EndOfMessage):
                return b"".join(pieces), text(event.headers)
            if not isinstance(event, h11.Data):
                raise ConnectionResetError("the client left within its request")
            pieces.append(bytes(event.data))

    def request(self, number=0):
        head = self.head()
        if head is None:
            return None
        if self.h11.they_are_waiting_for_100_continue:
            self.send(h11.InformationalResponse(status_code=100, headers=[]))
        body, trailers = self.body()
        version = "h1" if head.http_version == b"1.1" else "h1.0"
        return Request(version, head.method.decode(), head.target.decode("latin-1"), text(head.headers), body, trailers, number)

    def answer(self, answer, method="GET"):
        silent = method == "HEAD" or answer.status in (204, 304)
        self.send(h11.Response(status_code=answer.status, headers=answer.headers))
        for piece in () if silent else answer.body:
            self.send(h11.Data(data=piece))
        self.send(h11.EndOfMessage(headers=[] if silent else answer.trailers))

    def again(self):
        if self.h11.our_state is not h11.DONE or self.h11.their_state is not h11.DONE:
            return False
        self.h11.start_next_cycle()
        return True


class H2:
    """One HTTP/2 connection, either side. A thread reads; streams are used from any thread."""

    def __init__(self, peer, server=None, settings=None, credit=True):
        self.peer, self.server, self.credit = peer, server, credit
        self.turn = threading.Condition()
        self.streams, self.goaway, self.closed, self.settings = {}, None, False, {}
        self.h2 = Connection(h2.config.H2Configuration(client_side=server is None, header_encoding="utf-8"))
        # A change of settings counts when it is acknowledged; values for the first frame have to be there from the start.
        self.h2.local_settings = h2.settings.Settings(
            client=server is None, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20, **(settings or {})})
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(15 << 20)
        self.flush()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def flush(self):
        self.peer.sendall(self.h2.data_to_send())

    def read(self):
        try:
            while content := self.peer.recv(1 << 18):
                with self.turn:
                    for event in self.h2.receive_data(content):
                        self.take(event)
                    self.flush()
                    self.turn.notify_all()
        except (OSError, h2.exceptions.ProtocolError) as error:
            self.error = error
        with self.turn:
            self.closed = True
            for stream in self.streams.values():
                stream.events.put(None)
            self.turn.notify_all()

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            stream = self.streams[event.stream_id] = Stream(self, event.stream_id)
            threading.Thread(target=self.guarded, args=(stream,), daemon=True).start()
        if isinstance(event, h2.events.DataReceived) and self.credit:
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings.update({code: setting.new_value for code, setting in event.changed_settings.items()})
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream:
            stream.events.put(event)

    def guarded(self, stream):
        try:
            self.server(stream)
        except (OSError, h2.exceptions.ProtocolError, queue.Empty):
            pass

    def open(self, headers, end=True):
        """Starts a request; the client's side only."""
        with self.turn:
            number = self.h2.get_next_available_stream_id()
            stream = self.streams[number] = Stream(self, number)
            self.h2.send_headers(number, headers, end_stream=end)
            self.flush()
        return stream

    def join(self):
        self.thread.join()

    def close(self):
        # Closing alone would send nothing while the thread reads.
        try:
            self.peer.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.peer.close()


class Connection(h2.connection.H2Connection):
    """The package takes GOAWAY for the end of all; streams up to the last one it names go on (RFC 9113 6.8)."""

    def _receive_goaway_frame(self, frame):
        state = self.state_machine.state
        result = super()._receive_goaway_frame(frame)
        self.state_machine.state = state
        return result

    def close_connection(self, *words, **named):
        state = self.state_machine.state
        super().close_connection(*words, **named)
        self.state_machine.state = state


@dataclasses.dataclass
class Message:
    headers: list
    body: bytearray = dataclasses.field(default_factory=bytearray)
    trailers: list = dataclasses.field(default_factory=list)
    informational: list = dataclasses.field(default_factory=list)
    reset: int | None = None

    @property
    def status(self):
        return int(dict(self.headers)[":status"]) if self.headers else None


class Stream:
    """One stream of an `H2`."""

    def __init__(self, link, number):
        self.link, self.number, self.events = link, number, queue.Queue()

    def send_headers(self, headers, end=False):
        with self.link.turn:
            self.link.h2.send_headers(self.number, headers, end_stream=end)
            self.link.flush()

    def send_data(self, content=b"", end=False, timeout=20):
        """Waits for the peer's window, as every sender has to."""
        deadline = time.monotonic() + timeout
        content = memoryview(content)
        while True:
            with self.link.turn:
                room = self.link.h2.local_flow_control_window(self.number)
                while content and room <= 0:
                    if self.link.closed or not self.link.turn.wait(max(0, deadline - time.monotonic())):
                        raise TimeoutError("no window for data")
                    room = self.link.h2.local_flow_control_window(self.number)
                size = min(room, self.link.h2.max_outbound_frame_size, len(content))
                piece, content = content[:size], content[size:]
                self.link.h2.send_data(self.number, bytes(piece), end_stream=end and not content)
                self.link.flush()
            if not content:
                return

    def reset(self, code):
        with self.link.turn:
            self.link.h2.reset_stream(self.number, code)
            self.link.flush()

    def next(self, *kinds, timeout=20):
        """The next event of one of these kinds; None when the connection has gone."""
        while True:
            event = self.events.get(timeout=timeout)
            if event is None or not kinds or isinstance(event, kinds):
                return event

    def message(self, timeout=20):
        """Everything up to the end of the stream."""
        message = Message([])
        while True:
            event = self.next(timeout=timeout)
            if event is None:
                raise ConnectionResetError("the connection ended within the message")
            if isinstance(event, (h2.events.RequestReceived, h2.events.ResponseReceived)):
                message.headers = text(event.headers)
            elif isinstance(event, h2.events.InformationalResponseReceived):
                message.informational.append(int(dict(text(event.headers))[":status"]))
            elif isinstance(event, h2.events.DataReceived):
                message.body += event.data
            elif isinstance(event, h2.events.TrailersReceived):
                message.trailers = text(event.headers)
            elif isinstance(event, h2.events.StreamReset):
                message.reset = int(event.error_code)
                return message
            elif isinstance(event, h2.events.StreamEnded):
                return message

    def answer(self, answer, method="GET"):
        silent = method == "HEAD" or answer.status in (204, 304)
        self.send_headers([(":status", str(answer.status)), *answer.headers], end=silent)
        if silent:
            return
        for piece in answer.body:
            self.send_data(piece)
        if answer.trailers:
            self.send_headers(answer.trailers, end=True)
        else:
            self.send_data(end=True)


def connect(port, timeout=15, host="127.0.0.1"):
    peer = socket.create_connection((host, port), timeout)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def read_until(peer, mark, limit=1 << 20):
    """Bytes up to and with `mark`; less when the peer ended first."""
    content = b""
    while mark not in content and len(content) < limit:
        piece = peer.recv(1)
        if not piece:
            break
        content += piece
    return content


def read_all(peer):
    pieces = []
    while piece := peer.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def text(headers):
    return [(decoded(key).lower(), decoded(value)) for key, value in headers]


def decoded(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value
