"""One HTTP/2 connection whose frames are written by hand, right or wrong, and what a server may say to them."""

import hpack

from harness import check

BODY = b"steady answer\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WAIT = 5

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM,
 CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)
GET = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "shop.example")]
POST = [(":method", "POST"), *GET[1:]]


class Link:
    """One connection to the proxy, its frames written by hand."""

    def __init__(self, world, *, preface=True, settings=()):
        self.world, self.peer = world, world.connect()
        self.peer.settimeout(WAIT)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer, self.seen = b"", []
        if preface:
            self.raw(PREFACE)
            self.settings(*settings)
            self.until(lambda frame: frame.kind == SETTINGS and frame.flags & ACK, "SETTINGS is acknowledged")

    def raw(self, content):
        try:
            self.peer.sendall(content)
        except OSError:
            # The proxy has ended the connection already; what it said before that is still to be read.
            pass

    def send(self, kind, flags=0, stream=0, payload=b"", *, length=None):
        length = len(payload) if length is None else length
        self.raw(length.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload)

    def settings(self, *pairs):
        self.send(SETTINGS, payload=b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in pairs))

    def block(self, fields):
        return self.encoder.encode(fields, huffman=False)

    def head(self, stream, fields=GET, flags=END_STREAM | END_HEADERS):
        self.send(HEADERS, flags, stream, self.block(fields))

    def window(self, stream, step):
        self.send(WINDOW_UPDATE, 0, stream, step.to_bytes(4, "big"))

    def frame(self):
        """The next frame; None when the proxy ended the connection."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                piece = self.peer.recv(1 << 16)
            except TimeoutError:
                raise AssertionError(f"nothing comes for {WAIT} s; so far {self.seen}") from None
            except OSError:
                piece = b""
            if not piece:
                return None
            self.buffer += piece
        length = int.from_bytes(self.buffer[:3], "big")
        frame = Frame(self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big") & 0x7FFFFFFF, self.buffer[9:9 + length])
        self.buffer = self.buffer[9 + length:]
        if frame.kind in (HEADERS, CONTINUATION):
            frame.fields = dict(self.decoder.decode(frame.payload))
        self.seen.append(frame)
        return frame

    def until(self, truth, what):
        while frame := self.frame():
            if truth(frame):
                return frame
        raise AssertionError(f"the connection ended before this: {what}; it said {self.seen}")

    # What a rule may expect.

    def connection_error(self, *codes):
        """RFC 9113 5.4.1: GOAWAY with the reason, and the connection ends. The engine says PROTOCOL_ERROR, the most general
        reason (7), for most of them."""
        said = None
        while frame := self.frame():
            if frame.kind == GOAWAY:
                said = frame
        check(said is not None, f"the connection ends without GOAWAY; it said {self.seen}")
        check(said.code in (*codes, PROTOCOL_ERROR), f"GOAWAY with {said.code}, not one of {codes}")

    def stream_error(self, stream, *codes):
        """RFC 9113 5.4.2: RST_STREAM with the reason, and the connection goes on; 5.4.1 lets an endpoint end the connection
        instead, which has to be said as above."""
        while frame := self.frame():
            if frame.kind == GOAWAY:
                check(frame.code in (*codes, PROTOCOL_ERROR), f"GOAWAY with {frame.code}, not one of {codes}")
                return self.connection_ends()
            if frame.kind == RST_STREAM and frame.stream == stream:
                check(frame.code in codes, f"RST_STREAM with {frame.code}, not one of {codes}")
                return self.lives()
        raise AssertionError(f"the connection ends without a word about stream {stream}; it said {self.seen}")

    def refused(self, stream, *codes):
        """RFC 9113 8.1.1: a malformed request is a stream error; a server may answer with 400 before that."""
        while frame := self.frame():
            if frame.kind == HEADERS and frame.stream == stream:
                check(frame.fields.get(":status") == "400", f"{frame.fields.get(':status')} for a malformed request")
                return self.lives()
            if frame.kind == RST_STREAM and frame.stream == stream:
                check(frame.code in (codes or (PROTOCOL_ERROR,)), f"RST_STREAM with {frame.code}")
                return self.lives()
            if frame.kind == GOAWAY:
                check(frame.code == PROTOCOL_ERROR, f"GOAWAY with {frame.code}")
                return self.connection_ends()
        raise AssertionError(f"the connection ends without a word; it said {self.seen}")

    def connection_ends(self):
        while self.frame():
            pass

    def answered(self, stream=1, status="200", body=BODY):
        """A whole answer."""
        found, content = None, b""
        while True:
            frame = self.until(lambda frame: frame.stream == stream, f"an answer on stream {stream}")
            check(frame.kind != RST_STREAM, f"stream {stream} is reset: {frame}")
            if frame.kind == HEADERS:
                found = frame.fields.get(":status")
            if frame.kind == DATA:
                content += frame.payload
            if frame.kind in (DATA, HEADERS) and frame.flags & END_STREAM:
                break
        check((found, content) == (status, body), f"{found} {content[:100]}, not {status} {body}")

    def lives(self, mark=b"are you?"):
        self.send(PING, payload=mark)
        self.until(lambda frame: frame.kind == PING and frame.flags & ACK and frame.payload == mark, "a PING is answered")

    def close(self):
        self.peer.close()


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload, self.fields = kind, flags, stream, payload, None

    @property
    def code(self):
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at:at + 4], "big")

    def __repr__(self):
        name = NAMES[self.kind] if self.kind < len(NAMES) else str(self.kind)
        code = f" code {self.code}" if self.kind in (RST_STREAM, GOAWAY) else ""
        return f"<{name} flags {self.flags} stream {self.stream} length {len(self.payload)}{code}>"


NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION")
