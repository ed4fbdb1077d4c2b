"""What RFC 9113 and RFC 7541 ask of a server, frame by frame, over the same sections as h2spec, against a listener of the
proxy: a connection error is said in GOAWAY with a code of its kind and ends the connection; a stream error resets one stream
and leaves the others; what is malformed never reaches the origin; what is only strange is ignored.

h2spec itself is in no package of apt, pip, npm or cargo; where it is on the PATH, it runs too, strictly (`h2spec -S`)."""

import re
import shutil

import hpack

from frames import (ACK, BODY, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
                    FRAME_SIZE_ERROR, GET, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, NO_ERROR, PADDED, PING, POST,
                    PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE,
                    WITH_PRIORITY, Link)
from harness import PROTOCOL, case, check
from origins import Answer, Http, connect
from servers import client_tls, gateway

ROADS = ("clear", "tls")
RULES = {}


def rule(section, words):
    """One rule: a function that takes a `Link`. The rules of one chapter make one case."""

    def register(body):
        RULES.setdefault(section.split()[0].split(".")[0], []).append((section, words, body))
        return body

    return register


# --- RFC 9113 3: starting ---

@rule("3.4", "the first frame of the server is SETTINGS")
def first_frame(link):
    check(link.seen[0].kind == SETTINGS and not link.seen[0].flags & ACK, f"{link.seen}")


@rule("3.4 raw", "a preface that breaks off in its second line ends the connection")
def broken_preface(link):
    link.raw(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    link.settings()
    # A peer that does not speak HTTP/2 need not be told so in HTTP/2.
    link.connection_ends()


@rule("3.4 raw", "a client that begins with another frame than SETTINGS")
def no_settings(link):
    link.raw(PREFACE)
    link.send(PING, payload=bytes(8))
    # "A GOAWAY frame MAY be omitted in this case."
    link.connection_ends()


# --- 4: frames ---

@rule("4.1", "a frame of an unknown type is ignored")
def unknown_type(link):
    link.send(0xBB, 0xFF, 0, b"whatever")
    link.send(0xBC, 0xFF, 7, b"")
    link.lives()


@rule("4.1", "flags that mean nothing are ignored")
def unknown_flags(link):
    link.send(PING, 0xFE, 0, b"flagged!")
    link.until(lambda frame: frame.kind == PING and frame.flags & ACK and frame.payload == b"flagged!", "a PING is answered")


@rule("4.1", "the reserved bit of a stream identifier is ignored")
def reserved_bit(link):
    link.send(PING, 0, 1 << 31, b"reserved")
    link.until(lambda frame: frame.kind == PING and frame.flags & ACK and frame.payload == b"reserved", "a PING is answered")


@rule("4.2", "a DATA frame of 16,384 bytes is taken")
def largest_frame(link):
    link.head(1, POST, END_HEADERS)
    link.send(DATA, END_STREAM, 1, bytes(16_384))
    link.answered()


@rule("4.2", "a DATA frame larger than SETTINGS_MAX_FRAME_SIZE")
def large_data(link):
    link.head(1, POST, END_HEADERS)
    link.send(DATA, END_STREAM, 1, bytes(16_385))
    link.stream_error(1, FRAME_SIZE_ERROR)


@rule("4.2", "a HEADERS frame larger than SETTINGS_MAX_FRAME_SIZE")
def large_headers(link):
    link.head(1, GET + [("x-large", "a" * 16_385)])
    link.connection_error(FRAME_SIZE_ERROR)


@rule("4.2", "a frame on the connection larger than SETTINGS_MAX_FRAME_SIZE")
def large_settings(link):
    link.send(SETTINGS, payload=bytes(6 * 2731))
    link.connection_error(FRAME_SIZE_ERROR)


@rule("4.3", "a field block that cannot be decompressed")
def broken_block(link):
    link.send(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff\xff\xff\xff\xff")
    link.connection_error(COMPRESSION_ERROR)


@rule("4.3", "a field block interrupted by a frame of another kind")
def interrupted(link):
    link.head(1, GET, END_STREAM)
    link.send(PRIORITY, 0, 1, b"\0\0\0\0\x0f")
    link.connection_error(PROTOCOL_ERROR)


@rule("4.3", "a field block interrupted by another stream's HEADERS")
def interleaved(link):
    link.head(1, GET, END_STREAM)
    link.head(3)
    link.connection_error(PROTOCOL_ERROR)


# --- 5: streams ---

@rule("5.1", "idle: DATA")
def idle_data(link):
    link.send(DATA, END_STREAM, 1, b"test")
    link.connection_error(PROTOCOL_ERROR, STREAM_CLOSED)


@rule("5.1", "idle: RST_STREAM")
def idle_reset(link):
    link.send(RST_STREAM, 0, 1, CANCEL.to_bytes(4, "big"))
    link.connection_error(PROTOCOL_ERROR)


@rule("5.1", "idle: WINDOW_UPDATE")
def idle_window(link):
    link.window(1, 100)
    link.connection_error(PROTOCOL_ERROR)


@rule("5.1", "idle: CONTINUATION")
def idle_continuation(link):
    link.send(CONTINUATION, END_HEADERS, 1, link.block(GET))
    link.connection_error(PROTOCOL_ERROR)


@rule("5.1", "half closed by the client: DATA")
def half_closed_data(link):
    link.head(1)
    link.send(DATA, END_STREAM, 1, b"test")
    link.stream_error(1, STREAM_CLOSED)


@rule("5.1", "half closed by the client: HEADERS")
def half_closed_headers(link):
    link.head(1)
    link.head(1)
    link.stream_error(1, STREAM_CLOSED)


@rule("5.1", "half closed by the client: CONTINUATION")
def half_closed_continuation(link):
    link.head(1)
    link.send(CONTINUATION, END_HEADERS, 1, link.block(GET))
    link.connection_error(PROTOCOL_ERROR, STREAM_CLOSED)


@rule("5.1", "closed by RST_STREAM: DATA")
def reset_data(link):
    link.head(1, POST, END_HEADERS)
    link.send(RST_STREAM, 0, 1, CANCEL.to_bytes(4, "big"))
    link.send(DATA, END_STREAM, 1, b"test")
    link.stream_error(1, STREAM_CLOSED)


@rule("5.1", "closed by RST_STREAM: HEADERS")
def reset_headers(link):
    link.head(1, POST, END_HEADERS)
    link.send(RST_STREAM, 0, 1, CANCEL.to_bytes(4, "big"))
    link.head(1)
    link.stream_error(1, STREAM_CLOSED)


@rule("5.1", "closed by END_STREAM of both: DATA")
def closed_data(link):
    link.head(1)
    link.answered(1)
    link.send(DATA, END_STREAM, 1, b"test")
    link.stream_error(1, STREAM_CLOSED)


@rule("5.1", "closed by END_STREAM of both: HEADERS")
def closed_headers(link):
    link.head(1)
    link.answered(1)
    link.head(1)
    link.stream_error(1, STREAM_CLOSED, PROTOCOL_ERROR)


@rule("5.1", "closed: WINDOW_UPDATE, RST_STREAM and PRIORITY are no error")
def closed_harmless(link):
    link.head(1)
    link.answered(1)
    link.window(1, 1)
    link.send(RST_STREAM, 0, 1, NO_ERROR.to_bytes(4, "big"))
    link.send(PRIORITY, 0, 1, b"\0\0\0\0\x0f")
    link.lives()


@rule("5.1.1", "a stream with an even number")
def even_stream(link):
    link.head(2)
    link.connection_error(PROTOCOL_ERROR)


@rule("5.1.1", "a stream with a lower number than one that was opened")
def lower_stream(link):
    link.head(5)
    link.head(3)
    link.connection_error(PROTOCOL_ERROR, STREAM_CLOSED)


@rule("5.1.2", "one stream more than SETTINGS_MAX_CONCURRENT_STREAMS")
def many_streams(link):
    settings = link.seen[0].payload
    found = {int.from_bytes(settings[at:at + 2], "big"): int.from_bytes(settings[at + 2:at + 6], "big") for at in range(0, len(settings), 6)}
    limit = found[MAX_CONCURRENT_STREAMS]
    for number in range(limit + 1):
        link.head(2 * number + 1, POST, END_HEADERS)
    link.stream_error(2 * limit + 1, REFUSED_STREAM, PROTOCOL_ERROR)


@rule("5.3", "a stream that depends on itself is refused, or, as RFC 9113 has it, ignored")
def self_dependency(link):
    link.send(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, 1, b"\0\0\0\x01\xff" + link.block(GET))
    frame = link.until(lambda frame: frame.kind in (HEADERS, RST_STREAM, GOAWAY) and frame.kind != SETTINGS, "a reaction")
    check(frame.kind == HEADERS or frame.code == PROTOCOL_ERROR, str(frame))


@rule("5.4.1", "GOAWAY names the last stream that was worked on")
def last_stream(link):
    link.head(1)
    link.answered(1)
    link.send(PING, 0, 3, bytes(8))
    said = link.until(lambda frame: frame.kind == GOAWAY, "GOAWAY")
    check(int.from_bytes(said.payload[:4], "big") & 0x7FFFFFFF == 1, f"{said.payload}")


@rule("5.5", "a frame of an unknown type within a field block")
def unknown_within(link):
    link.head(1, GET, END_STREAM)
    link.send(0xBB, 0, 1, b"whatever")
    link.connection_error(PROTOCOL_ERROR)


# --- 6: what each frame may be ---

def wrong(section, words, kind, flags, stream, payload, *codes, opened=False):
    """A frame that is a connection error by itself; `opened` has stream 1 wait for its body before."""

    def body(link):
        if opened:
            link.head(1, POST, END_HEADERS)
        link.send(kind, flags, stream, payload)
        link.connection_error(*codes)

    rule(section, words)(body)


def setting(name, value):
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


wrong("6.1", "DATA on stream 0", DATA, END_STREAM, 0, b"test", PROTOCOL_ERROR, opened=True)
wrong("6.1", "DATA whose padding is as long as its payload", DATA, END_STREAM | PADDED, 1, b"\x05test", PROTOCOL_ERROR, opened=True)
wrong("6.1", "DATA with PADDED and no byte", DATA, END_STREAM | PADDED, 1, b"", PROTOCOL_ERROR, FRAME_SIZE_ERROR, opened=True)
wrong("6.2", "HEADERS on stream 0", HEADERS, END_STREAM | END_HEADERS, 0, b"\x82", PROTOCOL_ERROR)
wrong("6.2", "HEADERS whose padding is longer than its payload", HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\x09\x82\x86", PROTOCOL_ERROR)
wrong("6.2", "HEADERS with PRIORITY and fewer than 5 bytes", HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, 1, b"\0\0", PROTOCOL_ERROR, FRAME_SIZE_ERROR)
wrong("6.3", "PRIORITY on stream 0", PRIORITY, 0, 0, b"\0\0\0\x01\x0f", PROTOCOL_ERROR)
wrong("6.4", "RST_STREAM on stream 0", RST_STREAM, 0, 0, bytes(4), PROTOCOL_ERROR)
wrong("6.4", "RST_STREAM of 3 bytes", RST_STREAM, 0, 1, bytes(3), FRAME_SIZE_ERROR, opened=True)
wrong("6.5", "SETTINGS with ACK and a payload", SETTINGS, ACK, 0, setting(INITIAL_WINDOW_SIZE, 100), FRAME_SIZE_ERROR)
wrong("6.5", "SETTINGS on a stream", SETTINGS, 0, 1, b"", PROTOCOL_ERROR)
wrong("6.5", "SETTINGS of 5 bytes", SETTINGS, 0, 0, bytes(5), FRAME_SIZE_ERROR)
wrong("6.5.2", "SETTINGS_ENABLE_PUSH of 2", SETTINGS, 0, 0, setting(ENABLE_PUSH, 2), PROTOCOL_ERROR)
wrong("6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE of 2^31", SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 1 << 31), FLOW_CONTROL_ERROR)
wrong("6.5.2", "SETTINGS_MAX_FRAME_SIZE of 16,383", SETTINGS, 0, 0, setting(MAX_FRAME_SIZE, 16_383), PROTOCOL_ERROR)
wrong("6.5.2", "SETTINGS_MAX_FRAME_SIZE of 2^24", SETTINGS, 0, 0, setting(MAX_FRAME_SIZE, 1 << 24), PROTOCOL_ERROR)
wrong("6.6", "PUSH_PROMISE from a client", PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82", PROTOCOL_ERROR, opened=True)
wrong("6.7", "PING on a stream", PING, 0, 1, bytes(8), PROTOCOL_ERROR)
wrong("6.7", "PING of 6 bytes", PING, 0, 0, bytes(6), FRAME_SIZE_ERROR)
wrong("6.8", "GOAWAY on a stream", GOAWAY, 0, 1, bytes(8), PROTOCOL_ERROR)
wrong("6.8", "GOAWAY of 7 bytes", GOAWAY, 0, 0, bytes(7), FRAME_SIZE_ERROR)
wrong("6.9", "WINDOW_UPDATE of 0 on the connection", WINDOW_UPDATE, 0, 0, bytes(4), PROTOCOL_ERROR)
wrong("6.9", "WINDOW_UPDATE of 3 bytes", WINDOW_UPDATE, 0, 0, bytes(3), FRAME_SIZE_ERROR)
wrong("6.10", "CONTINUATION on stream 0", CONTINUATION, END_HEADERS, 0, b"\x82", PROTOCOL_ERROR)


@rule("6.1", "padding of DATA and HEADERS is taken off")
def padded(link):
    link.send(HEADERS, END_HEADERS | PADDED, 1, b"\x04" + link.block(POST) + bytes(4))
    link.send(DATA, END_STREAM | PADDED, 1, b"\x06test" + bytes(6))
    link.answered()


@rule("6.3", "PRIORITY of 4 bytes")
def short_priority(link):
    link.head(1, POST, END_HEADERS)
    link.send(PRIORITY, 0, 1, bytes(4))
    link.stream_error(1, FRAME_SIZE_ERROR)


@rule("6.3", "PRIORITY for an idle stream opens and hurts nothing")
def idle_priority(link):
    link.send(PRIORITY, 0, 3, b"\0\0\0\x01\x0f")
    link.head(1)
    link.answered(1)


@rule("6.5", "settings that no one knows are ignored, and each SETTINGS is acknowledged")
def unknown_setting(link):
    link.settings((0xFF, 1))
    link.until(lambda frame: frame.kind == SETTINGS and frame.flags & ACK, "SETTINGS is acknowledged")
    link.lives()


@rule("6.5.3", "a setting named twice counts as named last")
def settings_in_order(link):
    link.settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1))
    link.until(lambda frame: frame.kind == SETTINGS and frame.flags & ACK, "SETTINGS is acknowledged")
    link.head(1)
    first = link.until(lambda frame: frame.kind == DATA, "DATA")
    check(first.payload == BODY[:1], f"{first.payload} in a window of 1")


@rule("6.7", "PING comes back with ACK and its payload, and one with ACK does not")
def pings(link):
    link.send(PING, ACK, 0, b"answered")
    link.lives(b"question")
    check(not [frame for frame in link.seen if frame.kind == PING and frame.payload == b"answered"], "an answer to an answer")


@rule("6.8", "a client's GOAWAY leaves its open streams to their ends")
def goaway(link):
    link.head(1, POST, END_HEADERS)
    link.send(GOAWAY, payload=bytes(8))
    link.send(DATA, END_STREAM, 1, b"test")
    link.answered()


@rule("6.9", "WINDOW_UPDATE of 0 on a stream")
def zero_step(link):
    link.head(1, POST, END_HEADERS)
    link.window(1, 0)
    link.stream_error(1, PROTOCOL_ERROR)


@rule("6.9.1", "no more DATA than the window lets through, byte by byte", )
def small_window(link):
    link.settings((INITIAL_WINDOW_SIZE, 1))
    link.until(lambda frame: frame.kind == SETTINGS and frame.flags & ACK, "SETTINGS is acknowledged")
    link.head(1)
    for byte in BODY:
        frame = link.until(lambda frame: frame.kind == DATA and frame.payload, "DATA")
        check(frame.payload == bytes((byte,)), f"{frame.payload} in a window of 1")
        link.window(1, 1)


@rule("6.9.1", "a connection's window beyond 2^31-1")
def connection_window(link):
    link.window(0, 0x7FFFFFFF)
    link.window(0, 0x7FFFFFFF)
    link.connection_error(FLOW_CONTROL_ERROR)


@rule("6.9.1", "a stream's window beyond 2^31-1")
def stream_window(link):
    link.head(1, POST, END_HEADERS)
    link.window(1, 0x7FFFFFFF)
    link.window(1, 0x7FFFFFFF)
    link.stream_error(1, FLOW_CONTROL_ERROR)


@rule("6.9.2", "a window changed after its stream was opened, also to less than nothing")
def changed_window(link):
    link.settings((INITIAL_WINDOW_SIZE, 3))
    link.until(lambda frame: frame.kind == SETTINGS and frame.flags & ACK, "SETTINGS is acknowledged")
    link.head(1)
    frame = link.until(lambda frame: frame.kind == DATA, "DATA")
    check(frame.payload == BODY[:3], f"{frame.payload} in a window of 3")
    # Now -1: two more bytes of room make it 1.
    link.settings((INITIAL_WINDOW_SIZE, 2))
    link.window(1, 2)
    frame = link.until(lambda frame: frame.kind == DATA, "DATA")
    check(frame.payload == BODY[3:4], f"{frame.payload} in a window of 1")


@rule("6.9.2", "a setting that takes an open stream's window beyond 2^31-1")
def overflowing_setting(link):
    link.head(1, POST, END_HEADERS)
    link.window(1, 0x7FFFFFFF - 65_535)
    link.settings((INITIAL_WINDOW_SIZE, 0x7FFFFFFF))
    link.connection_error(FLOW_CONTROL_ERROR)


@rule("6.10", "a head in many CONTINUATION frames, some of them empty")
def continuations(link):
    block = link.block(GET + [("x-more", "b" * 100)])
    link.send(HEADERS, END_STREAM, 1, block[:10])
    link.send(CONTINUATION, 0, 1, b"")
    for at in range(10, len(block), 20):
        link.send(CONTINUATION, 0, 1, block[at:at + 20])
    link.send(CONTINUATION, END_HEADERS, 1, b"")
    link.answered()


@rule("6.10", "another frame than CONTINUATION behind an unfinished CONTINUATION")
def broken_continuation(link):
    block = link.block(GET)
    link.send(HEADERS, END_STREAM, 1, block[:1])
    link.send(CONTINUATION, 0, 1, block[1:2])
    link.send(DATA, END_STREAM, 1, b"test")
    link.connection_error(PROTOCOL_ERROR)


@rule("6.10", "CONTINUATION of another stream")
def strange_continuation(link):
    block = link.block(GET)
    link.send(HEADERS, END_STREAM, 1, block[:1])
    link.send(CONTINUATION, END_HEADERS, 3, block[1:])
    link.connection_error(PROTOCOL_ERROR)


@rule("6.10", "CONTINUATION behind END_HEADERS")
def late_continuation(link):
    link.head(1, POST, END_HEADERS)
    link.send(CONTINUATION, END_HEADERS, 1, link.block([("x-late", "1")]))
    link.connection_error(PROTOCOL_ERROR)


@rule("6.10", "CONTINUATION behind DATA")
def misplaced_continuation(link):
    link.head(1, POST, END_HEADERS)
    link.send(DATA, 0, 1, b"test")
    link.send(CONTINUATION, END_HEADERS, 1, link.block([("x-late", "1")]))
    link.connection_error(PROTOCOL_ERROR)


# --- 7: codes ---

@rule("7", "GOAWAY with a code that no one knows")
def unknown_goaway(link):
    link.head(1, POST, END_HEADERS)
    link.send(GOAWAY, payload=bytes(4) + b"\0\0\0\xff")
    link.send(DATA, END_STREAM, 1, b"test")
    link.answered()


@rule("7", "RST_STREAM with a code that no one knows")
def unknown_reset(link):
    link.head(1, POST, END_HEADERS)
    link.send(RST_STREAM, 0, 1, b"\0\0\0\xff")
    link.lives()


# --- 8: messages ---

def malformed(section, words, fields, raw=None):
    """A head that no origin may see."""

    def body(link):
        link.send(HEADERS, END_STREAM | END_HEADERS, 1, raw if raw is not None else link.block(fields))
        link.refused(1)

    body.malformed = True
    rule(section, words)(body)


def literal(name, value):
    """A field that an encoder would not write."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


PLAIN_GET = hpack.Encoder().encode(GET, huffman=False)

malformed("8.2.1", "a name with a capital letter", GET + [("X-Test", "ok")])
for label, name in (("a space", b"x y"), ("a colon", b"x:y"), ("NUL", b"x\0y"), ("CR", b"x\ry"), ("LF", b"x\ny"), ("a byte beyond ASCII", b"x\xe9")):
    malformed("8.2.1", f"a name with {label}", None, PLAIN_GET + literal(name, b"ok"))
malformed("8.2.1", "an empty name", None, PLAIN_GET + literal(b"", b"ok"))
for label, value in (("NUL", b"a\0b"), ("CR", b"a\rb"), ("LF", b"a\nb"), ("CR LF and another field", b"a\r\nx-more: 1")):
    malformed("8.2.1", f"a value with {label}", None, PLAIN_GET + literal(b"x-test", value))
for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"):
    malformed("8.2.2", f"{name} in a request", GET + [(name, "keep-alive" if name != "transfer-encoding" else "chunked")])
malformed("8.2.2", "TE with anything but trailers", GET + [("te", "trailers, deflate;q=0.5")])
malformed("8.3", "an unknown pseudo-header field", GET + [(":test", "ok")])
malformed("8.3", "a pseudo-header field of answers", GET + [(":status", "200")])
malformed("8.3", "a pseudo-header field behind a field", GET[:3] + [("x-test", "ok"), GET[3]])
malformed("8.3.1", "an empty :path", [pair for pair in GET if pair[0] != ":path"] + [(":path", "")])
for name in (":method", ":scheme", ":path"):
    malformed("8.3.1", f"no {name}", [pair for pair in GET if pair[0] != name])
for name, value in GET:
    malformed("8.3.1", f"two {name}", GET + [(name, value)])
malformed("8.3.1", ":authority and another Host", GET + [("host", "other.example")])


@rule("8.1", "a second head without END_STREAM")
def second_head(link):
    link.head(1, POST, END_HEADERS)
    link.send(DATA, 0, 1, b"test")
    link.head(1, [("x-trailer", "1")], END_HEADERS)
    link.refused(1)


@rule("8.1", "a pseudo-header field in trailers is refused, or no origin sees it")
def pseudo_trailers(link):
    link.head(1, POST, END_HEADERS)
    link.send(DATA, 0, 1, b"test")
    link.head(1, [(":path", "/other"), ("x-trailer", "1")])
    # The engine drops it and tells nobody, where RFC 9113 8.1 asks for a stream error.
    link.until(lambda frame: frame.stream == 1 and frame.kind in (HEADERS, RST_STREAM), "a reaction")
    check(not [request for request in link.world.origin.seen if request.target == "/other" or ":path" in dict(request.trailers)], "it reached the origin")


@rule("8.1", "trailers, HEAD, OPTIONS and a body are answered")
def ordinary(link):
    link.head(1, POST, END_HEADERS)
    link.send(DATA, 0, 1, b"test")
    link.head(1, [("x-trailer", "1")])
    link.answered(1)
    link.head(3, [(":method", "HEAD"), *GET[1:]])
    link.answered(3, body=b"")
    link.head(5, [(":method", "OPTIONS"), *GET[1:]])
    link.answered(5)


def lengths(words, said, pieces):
    def body(link):
        link.head(1, POST + [("content-length", said)], END_HEADERS if pieces else END_STREAM | END_HEADERS)
        for number, piece in enumerate(pieces):
            link.send(DATA, END_STREAM if number == len(pieces) - 1 else 0, 1, piece)
        link.refused(1)

    body.malformed = True
    rule("8.1.1", words)(body)


lengths("Content-Length larger than the body", "5", [b"test"])
lengths("Content-Length smaller than the body", "1", [b"test"])
lengths("Content-Length other than the sum of many DATA frames", "9", [b"test", b"test"])
lengths("Content-Length of a request that ends with its head", "4", [])
lengths("Content-Length that is no number", "four", [b"test"])


# --- RFC 7541, called "hpack" here ---

def compression(section, words, block):
    def body(link):
        link.send(HEADERS, END_STREAM | END_HEADERS, 1, PLAIN_GET + block)
        link.connection_error(COMPRESSION_ERROR)

    rule(f"hpack {section}", words)(body)


compression("2.3.3", "an index beyond both tables", b"\xc6")
compression("2.3.3", "a literal whose name is beyond both tables", b"\x7f\x07\x02ok")
compression("4.2", "a change of the table's size behind a field", b"\x21")
compression("5.1", "an integer that does not end", b"\x7f" + b"\xff" * 16)
compression("5.2", "a string longer than its block", b"\x00\x7fabc")
compression("5.2", "Huffman padding of more than 7 bits", b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")
compression("5.2", "Huffman padding of zeros", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90")
compression("5.2", "Huffman with EOS", b"\x00\x85\xff\xff\xff\xff\xff\x01a")
compression("6.1", "index 0", b"\x80")


@rule("hpack 6.3", "a table larger than SETTINGS_HEADER_TABLE_SIZE")
def large_table(link):
    link.send(HEADERS, END_STREAM | END_HEADERS, 1, b"\x3f\xe1\xff\x03" + PLAIN_GET)
    link.connection_error(COMPRESSION_ERROR)


@rule("hpack 6", "each representation of a field, with and without Huffman, is read")
def representations(link):
    huffman = hpack.Encoder().encode(GET, huffman=True)
    link.send(HEADERS, END_STREAM | END_HEADERS, 1, huffman + literal(b"x-plain", b"1") + b"\x10\x07x-never\x011" + b"\x40\x06x-kept\x011")
    link.answered(1)
    # The last of them is the newest in the table now.
    link.send(HEADERS, END_STREAM | END_HEADERS, 3, b"\x82\x86\x84\x01\x0cshop.example\xbe")
    link.answered(3)
    link.send(HEADERS, END_STREAM | END_HEADERS, 5, b"\x20\x3f\xe1\x1f" + PLAIN_GET)
    link.answered(5)


class World:
    """An origin and a proxy in front of it, clear or over TLS."""

    def __init__(self, lab, down, up):
        # Most of these clients break off, or say what no request may be.
        lab.flags |= {"client_reset", "bad_request", "protocol_error"}
        answer = Answer(200, [("content-length", str(len(BODY)))], [BODY])
        self.origin = Http(lab, up, lambda _: answer)
        # Requests that are cut off within their bodies are what most rules are about: no error of this origin's counts.
        lab.origins.remove(self.origin)
        self.down = down
        upstream = {"name": "app", "addresses": [f"127.0.0.1:{self.origin.port}"], "protocol": PROTOCOL[up]}
        self.port = gateway(lab, [upstream]).port("edge") if down == "tls" else lab.front(self.origin.port, up=up)

    def connect(self):
        peer = connect(self.port)
        return client_tls("h2").wrap_socket(peer, server_hostname="shop.example") if self.down == "tls" else peer


def chapter(name, words):
    @case(words, needs=["openssl"], direct=False, down=ROADS, up=("h1", "h2"))
    def body(lab, down, up):
        world, failed = World(lab, down, up), []
        for section, promise, hold in RULES[name]:
            before = len(world.origin.seen)
            link = Link(world, preface=not section.endswith("raw"))
            try:
                hold(link)
                check(not getattr(hold, "malformed", False) or len(world.origin.seen) == before, "it reached the origin")
            except AssertionError as error:
                failed.append(f"{section.removesuffix(' raw')} {promise}: {error}")
            finally:
                link.close()
        check(not failed, "\n".join(failed))


CHAPTERS = {
    "3": "RFC 9113 3, how a connection begins",
    "4": "RFC 9113 4, the shape of frames",
    "5": "RFC 9113 5, the states of streams",
    "6": "RFC 9113 6, what each frame may be",
    "7": "RFC 9113 7, codes that no one knows",
    "8": "RFC 9113 8, what is malformed is refused and no origin sees it",
    "hpack": "RFC 7541, what cannot be decompressed ends the connection",
}
for number, words in CHAPTERS.items():
    chapter(number, words)


if shutil.which("h2spec"):

    @case("h2spec itself, strictly", needs=["h2spec", "openssl"], direct=False, down=ROADS, up=("h1", "h2"))
    def h2spec(lab, down, up):
        port = World(lab, down, up).port
        words = ["-t", "-k", "-h", "localhost"] if down == "tls" else ["-h", "127.0.0.1"]
        report = lab.run("h2spec", "-S", *words, "-p", port, code=None, timeout=50).out
        ran, passed = re.search(r"(\d+) tests, (\d+) passed", report).groups()
        check(ran == passed and int(ran) > 140, report[-3000:])
