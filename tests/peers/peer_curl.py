"""curl as the client: methods, framing, 100-continue, trailers, upgrades, the forward proxy, TLS at the gateway."""

import subprocess
import threading
import time

from clients import VERSION, curl
from harness import PROTOCOL, case, check, equal, free_port, wait
from origins import H1, Answer, Http, Origin, app, checksum, connect, pattern, read_until
from servers import certificates, gateway, server_tls

BOTH = ("h1", "h2")
# What a proxy that traces adds to a request; nothing else may be new.
OURS = {"traceparent", "tracestate", "x-request-id"}


@case("GET brings status, headers and body, and the origin sees the request unchanged", needs=["curl"], down=BOTH, up=BOTH)
def get(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/echo/a/../b%2Fc;d?x=%20y&&z", "--path-as-is", "-H", "x-two: 1", "-H", "x-two: 2",
               "-H", "cookie: a=1; b=2", "-H", "x-empty;", down=down)
    equal(got.status, 200, "status")
    equal(got.counts["version"], {"h1": "1.1", "h2": "2"}[down], "the version that curl spoke")
    equal(got.json["protocol"], up, "the version that the origin spoke")
    equal(got.json["target"], "/echo/a/../b%2Fc;d?x=%20y&&z", "the target, byte for byte")
    equal(got.saw("host"), [f"127.0.0.1:{port}"], "Host")
    equal(got.saw("x-two"), ["1", "2"], "a field given twice, in order (RFC 9110 5.3)")
    equal("; ".join(got.saw("cookie")), "a=1; b=2", "Cookie (one field towards HTTP/1: RFC 9113 8.2.3)")
    equal(got.saw("x-empty"), [""], "an empty field value")
    equal(got.values("content-type"), ["application/json"], "Content-Type")


@case("POST carries its body and its length", needs=["curl"], down=BOTH, up=BOTH)
def post(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    file = lab.write("upload", pattern(30_000))
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "--data-binary", f"@{file}", "-H", "content-type: text/x-test", "-H", "expect:", down=down)
    equal(got.status, 200, "status")
    equal((got.json["method"], got.json["length"], got.json["sha256"]), ("POST", 30_000, checksum(pattern(30_000))), "the body")
    equal(got.saw("content-length"), ["30000"], "Content-Length is kept")
    equal(got.saw("content-type"), ["text/x-test"], "Content-Type")


@case("POST without a body says Content-Length: 0 and does not wait", needs=["curl"], down=BOTH, up=BOTH)
def post_empty(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "-X", "POST", "-d", "", down=down)
    equal((got.status, got.json["method"], got.json["length"]), (200, "POST", 0), "the request")


@case("HEAD keeps the Content-Length of what GET would bring and has no body", needs=["curl"], down=BOTH, up=BOTH)
def head(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    url = f"http://127.0.0.1:{port}/bytes/12345"
    got = curl(lab, url, "-I", down=down)
    equal((got.status, got.values("content-length")), (200, ["12345"]), "status, Content-Length (RFC 9110 8.6)")
    check("transfer-encoding" not in dict(got.headers), "no Transfer-Encoding beside it")
    if down == "h1":
        done = lab.run("curl", "-sS", "-I", "-w", "%{num_connects}\n", url, url)
        check(done.out.splitlines()[-1] == "0", "the connection serves another request")
    equal(origin.seen[0].method, "HEAD", "the method at the origin")


@case("204 and 304 come without body, 204 without Content-Length", needs=["curl"], down=BOTH, up=BOTH)
def no_content(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/status/204", down=down)
    equal((got.status, got.body), (204, b""), "204")
    equal([key for key, _ in got.headers if key in ("content-length", "transfer-encoding")], [], "no framing on 204 (RFC 9110 8.6)")
    got = curl(lab, f"http://127.0.0.1:{port}/status/304", "-H", 'if-none-match: "one"', down=down)
    equal((got.status, got.body, got.values("etag")), (304, b"", ['"one"']), "304")
    check("transfer-encoding" not in dict(got.headers), "no Transfer-Encoding on 304 (RFC 9112 6.1)")


@case("an HTTP/1.0 client gets a body that it can read, chunked or not at the origin", needs=["curl"], down=("h1",), up=BOTH)
def http10(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/pieces/100000", "-0")
    equal((got.status, checksum(got.body)), (200, checksum(pattern(100_000))), "a body without length")
    check("transfer-encoding" not in dict(got.headers), "no Transfer-Encoding towards HTTP/1.0 (RFC 9112 6.1)")
    got = curl(lab, f"http://127.0.0.1:{port}/bytes/5000", "-0")
    equal((got.status, got.values("content-length"), got.body), (200, ["5000"], pattern(5000)), "a body with length")
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "-0", "-d", "hello")
    equal((got.status, got.json["length"]), (200, 5), "a POST")
    if not lab.direct:
        equal(got.json["protocol"], up, "the version towards the origin is the proxy's own (RFC 9112 2.3)")


@case("a chunked upload arrives whole, as chunks or as a stream", needs=["curl"], down=BOTH, up=BOTH)
def chunked_upload(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    # Standard input has no length: HTTP/1.1 then needs chunks.
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "-T", "-", "-H", "expect:", down=down, input=pattern(300_000))
    equal((got.status, got.json["method"], got.json["sha256"]), (200, "PUT", checksum(pattern(300_000))), "the body")
    equal(got.saw("content-length"), [], "no length is invented")


@case("64 MiB go up and come down with the same checksum", needs=["curl"], down=BOTH, up=BOTH)
def large(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    size = 64 << 20
    file = lab.write("upload", pattern(size))
    got = curl(lab, f"http://127.0.0.1:{port}/bytes/{size}", down=down, timeout=50)
    equal((got.status, len(got.body), checksum(got.body)), (200, size, checksum(pattern(size))), "the download")
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "--data-binary", f"@{file}", "-H", "expect:", down=down, timeout=50)
    equal((got.status, got.json["length"], got.json["sha256"]), (200, size, checksum(pattern(size))), "the upload")


@case("a body of unknown length comes down whole", needs=["curl"], down=BOTH, up=BOTH)
def pieces(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/pieces/1000000", down=down)
    equal((got.status, checksum(got.body)), (200, checksum(pattern(1_000_000))), "the body")
    equal(got.values("content-length"), [], "no length is invented")


@case("a body that the origin cuts short is an error for the client, not a short success", needs=["curl"], down=BOTH, up=("h1",))
def cut(lab, down, up):
    lab.flags |= {"upstream_closed"}
    def handle(peer, _):
        link = H1(peer)
        link.request()
        peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        # Over HTTP/2 a reset overtakes what still waits to be written.
        time.sleep(0.3)

    port = lab.front(Origin(lab, handle).port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/", down=down, code=None)
    check(got.code in (18, 56, 92), f"curl tells of a cut body (RFC 9112 8), its exit code is {got.code}")
    equal(got.body, b"hello", "what had come")


@case("the first of endless events arrives at once", needs=["curl"], down=BOTH, up=BOTH)
def event_stream(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    start = time.monotonic()
    process = subprocess.Popen(["curl", "-sN", "--max-time", "10", VERSION[down], f"http://127.0.0.1:{port}/events/6"], stdout=subprocess.PIPE)
    first = process.stdout.readline()
    early = time.monotonic() - start
    rest = process.stdout.read()
    equal(process.wait(10), 0, "curl's exit code")
    equal((first + rest).count(b"data:"), 6, "all events")
    check(early < 1, f"the first event came after {early:.2f} s of 1.8 s")


@case("a client that leaves ends the request at the origin too", needs=["curl"], down=BOTH, up=("h1",))
def client_leaves(lab, down, up):
    lab.flags |= {"client_reset"}
    ended = threading.Event()

    def handle(peer, _):
        link = H1(peer)
        link.request()
        if peer.recv(1) == b"":
            ended.set()

    port = lab.front(Origin(lab, handle).port, up="h1")
    curl(lab, f"http://127.0.0.1:{port}/", "--max-time", "0.5", down=down, code=28)
    check(ended.wait(5), "the origin's connection ends when nobody waits for its answer")


def expecting(lab, reply):
    """An origin that says `reply` to a head with Expect, having counted the bytes of content that came before."""
    early, expects, after = [], [], []

    def handle(peer, _):
        link = H1(peer)
        request = link.head()
        if request is None:
            return
        expects.append(dict(request.headers).get(b"expect"))
        peer.settimeout(0.4)
        try:
            early.append(len(peer.recv(1 << 16)) if expects[-1] and not link.h11.trailing_data[0] else len(link.h11.trailing_data[0]))
        except TimeoutError:
            early.append(0)
        peer.settimeout(20)
        reply(peer, link, after, expects[-1])

    return Origin(lab, handle), early, expects, after


@case("an origin's final answer to Expect reaches curl before it sends the body", needs=["curl"])
def expect_refused(lab):
    def reply(peer, _link, _after, _expect):
        peer.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n")

    origin, early, expects, _ = expecting(lab, reply)
    port = lab.front(origin.port, up="h1", protocol="http")
    file = lab.write("upload", pattern(1 << 20))
    got = curl(lab, f"http://127.0.0.1:{port}/", "--data-binary", f"@{file}", "-H", "expect: 100-continue", "--expect100-timeout", "8", down="h1")
    equal((got.status, got.body, got.counts["sent"]), (413, b"no\n", 0), "status, body, bytes that curl sent (RFC 9110 10.1.1)")
    equal((expects, early), ([b"100-continue"], [0]), "Expect at the origin, and content before its answer")
    equal([status for status, _ in got.heads], [413], "no 100 is invented before the origin's answer")


@case("an origin's 417 reaches curl before the body does, and curl asks again without Expect", needs=["curl"])
def expect_417(lab):
    size = 2 << 20
    expects, after = [], []

    def handle(peer, _):
        while head := read_until(peer, b"\r\n\r\n").lower():
            expects.append(b"expect: 100-continue" in head)
            if expects[-1]:
                peer.sendall(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
            else:
                content = b""
                while len(content) < size and (piece := peer.recv(1 << 16)):
                    content += piece
                after.append(checksum(content))
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    port = lab.front(Origin(lab, handle).port, up="h1")
    # Above 1 MiB curl asks of its own accord; only then it repeats by itself.
    file = lab.write("upload", pattern(size))
    got = curl(lab, f"http://127.0.0.1:{port}/", "--data-binary", f"@{file}", "--expect100-timeout", "8", down="h1")
    equal([status for status, _ in got.heads], [417, 200], "the answers that curl saw")
    equal((expects, after), ([True, False], [checksum(pattern(size))]), "Expect and content at the origin")


@case("an origin's 100 reaches curl, and only then the body moves", needs=["curl"])
def expect_100(lab):
    def reply(peer, link, after, _expect):
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        after.append(checksum(link.body()[0]))
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    origin, early, expects, after = expecting(lab, reply)
    port = lab.front(origin.port, up="h1")
    file = lab.write("upload", pattern(1 << 20))
    got = curl(lab, f"http://127.0.0.1:{port}/", "--data-binary", f"@{file}", "-H", "expect: 100-continue", "--expect100-timeout", "8", down="h1")
    equal([status for status, _ in got.heads], [100, 200], "the answers that curl saw")
    equal((expects, early, after), ([b"100-continue"], [0], [checksum(pattern(1 << 20))]), "Expect, early content, content")


@case("an origin that ignores Expect gets the body after a bounded wait", needs=["curl"])
def expect_ignored(lab):
    def handle(peer, _):
        link = H1(peer)
        link.head()
        body, _ = link.body()
        link.answer(Answer(200, [("x-sha256", checksum(body)), ("content-length", "0")]))

    port = lab.front(Origin(lab, handle).port, up="h1")
    file = lab.write("upload", pattern(100_000))
    start = time.monotonic()
    got = curl(lab, f"http://127.0.0.1:{port}/", "--data-binary", f"@{file}", "-H", "expect: 100-continue", "--expect100-timeout", "1.5", down="h1")
    equal((got.status, got.values("x-sha256")), (200, [checksum(pattern(100_000))]), "status, content")
    check(time.monotonic() - start < 4, "the wait is bounded")


@case("response trailers reach curl", needs=["curl"], down=BOTH, up=BOTH)
def response_trailers(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/trailers", "-H", "TE: trailers", down=down)
    equal((got.status, got.body), (200, b"with trailers\n"), "the answer")
    equal(got.trailers, [("x-checksum", "abc")], "trailers (RFC 9110 6.5)")
    equal(got.values("trailer"), ["x-checksum"], "Trailer is passed on")


@case("a client without TE: trailers still gets a whole answer", needs=["curl"], down=BOTH, up=BOTH)
def unasked_trailers(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/trailers", down=down)
    equal((got.status, got.body), (200, b"with trailers\n"), "the answer")


@case("request trailers reach the origin", down=("h1",), up=BOTH)
def request_trailers(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    with connect(port) as peer:
        peer.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\nconnection: close, te\r\n\r\n"
                     b"5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")
        answer = read_until(peer, b"}")
    check(answer.startswith(b"HTTP/1.1 200"), f"status of {answer[:80]}")
    equal((origin.seen[0].body, origin.seen[0].trailers), (b"hello", [("x-sum", "42")]), "content and trailers at the origin")


@case("an upgrade to an unknown protocol switches with 101 and moves bytes both ways")
def upgrade(lab):
    def handle(peer, _):
        head = read_until(peer, b"\r\n\r\n")
        check(b"upgrade: chatter/7" in head.lower(), f"Upgrade at the origin in {head}")
        check(b"upgrade" in head.lower().split(b"connection:")[1].split(b"\r\n")[0], "Connection: upgrade at the origin (RFC 9110 7.8)")
        # The first bytes of the new protocol come in the same segment as the 101.
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chatter/7\r\nx-kept: yes\r\n\r\nhello from the origin\n")
        while piece := peer.recv(4096):
            peer.sendall(piece.upper())
        peer.sendall(b"BYE\n")

    port = lab.front(Origin(lab, handle).port, up="h1")
    with connect(port) as peer:
        peer.sendall(b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: chatter/7\r\n\r\n")
        head = read_until(peer, b"\r\n\r\n")
        check(head.startswith(b"HTTP/1.1 101 "), f"status of {head}")
        for field in (b"upgrade: chatter/7", b"connection: upgrade", b"x-kept: yes"):
            check(field in head.lower(), f"{field} in {head}")
        equal(read_until(peer, b"\n"), b"hello from the origin\n", "the origin's first bytes")
        for word in (b"\x00\xffraw\n", b"GET / HTTP/1.1\r\n\r\n"):
            peer.sendall(word)
            equal(read_until(peer, word.upper()), word.upper(), "an echo")
        peer.shutdown(1)
        equal(read_until(peer, b"\n"), b"BYE\n", "what the origin says after the client's half is closed")


@case("a refused upgrade is an ordinary answer and the connection goes on")
def upgrade_refused(lab):
    origin = Http(lab, "h1")
    port = lab.front(origin.port, up="h1")
    with connect(port) as peer:
        peer.sendall(b"GET /bytes/4 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: chatter/7\r\n\r\n")
        head = read_until(peer, b"\r\n\r\n")
        check(head.startswith(b"HTTP/1.1 200"), f"status of {head}")
        equal(read_until(peer, pattern(4)), pattern(4), "the body")
        peer.sendall(b"GET /bytes/3 HTTP/1.1\r\nhost: a\r\n\r\n")
        check(read_until(peer, b"\r\n\r\n").startswith(b"HTTP/1.1 200"), "a second request on the same connection")
        equal(read_until(peer, pattern(3)), pattern(3), "its body")


@case("pipelined requests are answered in order", down=("h1",), up=BOTH)
def pipelined(lab, down, up):
    port = lab.front(Http(lab, up).port, up=up)
    with connect(port) as peer:
        peer.sendall(b"".join(b"GET /%s HTTP/1.1\r\nhost: a\r\n\r\n" % path for path in (b"slow/200", b"bytes/3", b"bytes/4")))
        for body in (b"slow\n", pattern(3), pattern(4)):
            head = read_until(peer, b"\r\n\r\n")
            check(head.startswith(b"HTTP/1.1 200") and b"content-length: %d\r\n" % len(body) in head.lower(), f"an answer (RFC 9112 9.3.2): {head}")
            equal(read_until(peer, body), body, "its body")


@case("an offer of h2c by Upgrade is answered, and HTTP2-Settings does not go on", needs=["curl"], down=("h1",), up=BOTH)
def h2c_upgrade(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "--http2")
    equal(got.status, 200, "status")
    if not lab.direct:
        equal(got.saw("http2-settings"), [], "HTTP2-Settings is for one hop (RFC 7540 3.2.1)")


@case("a hop's own fields stay on their hop", needs=["curl"], direct=False, up=BOTH)
def hop_by_hop(lab, up):
    def answer(request):
        response = app(request)
        if up == "h1":
            response.headers += [("connection", "x-local"), ("x-local", "1"), ("keep-alive", "timeout=5"), ("proxy-authenticate", "Basic")]
        return response

    origin = Http(lab, up, answer)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "-H", "connection: x-mine, keep-alive", "-H", "x-mine: 1", "-H", "keep-alive: 5",
               "-H", "proxy-connection: keep-alive", "-H", "te: gzip", "-H", "x-stays: 1", down="h1")
    gone = {"x-mine", "keep-alive", "proxy-connection", "te"} & {key for key, _ in got.json["headers"]}
    equal(gone, set(), "request fields that went beyond their hop (RFC 9110 7.6.1)")
    equal(got.saw("x-stays"), ["1"], "a field that is not the hop's")
    gone = {"x-local", "keep-alive"} & {key for key, _ in got.headers}
    equal(gone, set(), "response fields that went beyond their hop")


@case("no header is invented: what both ends see is what they see without the proxy", needs=["curl"], direct=False, down=BOTH, up=BOTH)
def nothing_invented(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    for path in ("echo", "bytes/10", "pieces/10", "status/404"):
        there = curl(lab, f"http://127.0.0.1:{origin.port}/{path}", down=up)
        here = curl(lab, f"http://127.0.0.1:{port}/{path}", down=down)
        framing = {"transfer-encoding", "content-length"} if down != up else set()
        lengths = {"content-length"} if path == "echo" else set()
        for name, direct, proxied in (("response", there.headers, here.headers),
                                      ("request", origin.seen[-2].headers, origin.seen[-1].headers)):
            plain = [(key, value) for key, value in direct if key not in framing | lengths | {"host"}]
            seen = [(key, value) for key, value in proxied if key not in framing | lengths | OURS | {"host"}]
            equal(sorted(seen), sorted(plain), f"{name} fields of /{path}")


@case("Date and Server of the origin are kept as they are", needs=["curl"], down=BOTH, up=BOTH)
def date_kept(lab, down, up):
    origin = Http(lab, up, lambda _: Answer(200, [("date", "Mon, 01 Jan 2001 00:00:00 GMT"), ("server", "old/1"), ("content-length", "0")]))
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/", down=down)
    equal((got.values("date"), got.values("server")), (["Mon, 01 Jan 2001 00:00:00 GMT"], ["old/1"]), "Date and Server")


@case("one connection serves many requests, also towards the origin", needs=["curl"], down=("h1",), up=BOTH)
def keep_alive(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    url = f"http://127.0.0.1:{port}/echo"
    reused(lab, origin, VERSION[down], url)


@case("one TLS connection serves many requests, also towards the origin", needs=["curl", "openssl"], direct=False, down=BOTH, up=BOTH)
def keep_alive_tls(lab, down, up):
    # curl 7.88 cannot reuse a cleartext HTTP/2 connection with prior knowledge (exit code 16), over TLS it can.
    origin = Http(lab, up)
    port = gateway(lab, [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": PROTOCOL[up]}]).port("edge")
    reused(lab, origin, {"h1": "--http1.1", "h2": "--http2"}[down], f"https://shop.example:{port}/echo",
           "--cacert", certificates() / "ca.crt", "--resolve", f"shop.example:{port}:127.0.0.1")


def reused(lab, origin, version, url, *words):
    done = lab.run("curl", "-sS", version, *words, "-w", "\n%{num_connects} %{http_code}\n", *[url] * 20)
    counts = [line for line in done.out.splitlines() if line.endswith(" 200")]
    equal(counts, ["1 200"] + ["0 200"] * 19, "connections that curl opened, and statuses")
    equal(len({request.connection for request in origin.seen}), 1, "connections at the origin")


@case("OPTIONS * goes through", needs=["curl"], down=BOTH, up=BOTH)
def options_star(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    got = curl(lab, f"http://127.0.0.1:{port}", "-X", "OPTIONS", "--request-target", "*", down=down)
    equal((got.status, got.json["method"], got.json["target"]), (200, "OPTIONS", "*"), "the request (RFC 9112 3.2.4)")


@case("statuses, informational ones aside, pass as they are", needs=["curl"], down=BOTH, up=BOTH)
def statuses(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    for status in (201, 206, 301, 401, 404, 418, 429, 500, 502, 503, 599):
        equal(curl(lab, f"http://127.0.0.1:{port}/status/{status}", down=down).status, status, "status")


@case("103 before an answer does no harm to it", needs=["curl"], down=BOTH, up=("h1",))
def early_hints(lab, down, up):

    def handle(peer, _):
        H1(peer).request()
        peer.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    port = lab.front(Origin(lab, handle).port, up="h1")
    got = curl(lab, f"http://127.0.0.1:{port}/", down=down)
    equal((got.status, got.body), (200, b"ok"), "the answer (RFC 9110 15.2)")


@case("too large a head is answered with 431", needs=["curl"], direct=False, down=("h1",))
def large_head(lab, down):
    lab.flags |= {"too_large"}
    origin = Http(lab, "h1")
    port = lab.front(origin.port, up="h1")
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "-H", "x-large: " + "a" * 66_000, down=down, code=None)
    equal(got.heads and got.status, 431, f"status (RFC 6585 5), curl's code {got.code}")
    wait(lambda: [line for line in lab.proxies[0].requests() if line["flag"] == "too_large"], "a refused request has its line in the access log", timeout=2)
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "-H", "x-large: " + "a" * 30_000, down=down)
    equal((got.status, len(got.saw("x-large")[0])), (200, 30_000), "half the limit")


@case("no origin: a clear answer at once", needs=["curl"], direct=False, down=BOTH, up=BOTH)
def no_origin(lab, down, up):
    lab.flags |= {"connect_failed"}
    port = lab.front(free_port(), up=up)
    start = time.monotonic()
    got = curl(lab, f"http://127.0.0.1:{port}/", down=down)
    check(got.status in (502, 503), f"status {got.status}")
    check(time.monotonic() - start < 2, "without waiting")


@case("no route: 404", needs=["curl"], direct=False, down=BOTH)
def no_route(lab, down):
    lab.flags |= {"no_route"}
    origin = Http(lab, "h1")
    proxy = lab.proxy([{"name": "edge", "mode": "gateway", "routes": [{"name": "a", "match": {"pathPrefix": "/a"}, "upstream": "app"}]}],
                      [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": "http1"}])
    equal(curl(lab, f"http://127.0.0.1:{proxy.port('edge')}/a/echo", down=down).status, 200, "a path with a route")
    equal(curl(lab, f"http://127.0.0.1:{proxy.port('edge')}/b", down=down).status, 404, "a path without a route")


def forward(lab):
    return lab.proxy([{"name": "out", "mode": "outbound", "transparent": False}]).port("out")


@case("curl -x: an absolute target goes to its host in origin form", needs=["curl"], direct=False, up=BOTH)
def forward_proxy(lab, up):
    if up == "h2":
        # Nothing tells a forward proxy that a cleartext origin speaks HTTP/2 only.
        return
    origin = Http(lab, up)
    got = curl(lab, f"http://127.0.0.1:{origin.port}/echo?x=1", "-x", f"http://127.0.0.1:{forward(lab)}")
    equal((got.status, got.json["target"]), (200, "/echo?x=1"), "status, and target in origin form (RFC 9112 3.2.1)")
    equal(got.saw("host"), [f"127.0.0.1:{origin.port}"], "Host")
    equal(got.saw("proxy-connection"), [], "Proxy-Connection stays")


@case("curl -x: a name is resolved by the proxy", needs=["curl"], direct=False)
def forward_name(lab):
    origin = Http(lab, "h1")
    got = curl(lab, f"http://localhost:{origin.port}/echo", "-x", f"http://127.0.0.1:{forward(lab)}")
    equal((got.status, got.saw("host")), (200, [f"localhost:{origin.port}"]), "status and Host")


@case("curl -x: what cannot be reached is answered, and the connection goes on", needs=["curl"], direct=False)
def forward_unreachable(lab):
    lab.flags |= {"connect_failed", "no_healthy_endpoint"}
    port, nobody = forward(lab), free_port()
    got = curl(lab, f"http://127.0.0.1:{nobody}/", "-x", f"http://127.0.0.1:{port}")
    check(got.status in (502, 503), f"status {got.status} for a closed port")
    got = curl(lab, f"http://127.0.0.1:{nobody}/", "-p", "-x", f"http://127.0.0.1:{port}", code=None)
    check(got.code in (7, 56) and got.status in (502, 503), f"CONNECT to a closed port: status {got.heads and got.status}, curl's code {got.code}")
    got = curl(lab, "http://no-such-name.invalid/", "-x", f"http://127.0.0.1:{port}", code=None)
    check(got.status in (502, 503), f"status {got.status} for a name that does not resolve")


@case("curl -p: CONNECT opens a tunnel for HTTP", needs=["curl"], direct=False)
def tunnel(lab):
    origin = Http(lab, "h1")
    got = curl(lab, f"http://127.0.0.1:{origin.port}/echo", "-p", "-x", f"http://127.0.0.1:{forward(lab)}")
    equal([status for status, _ in got.heads], [200, 200], "the tunnel's and the origin's status")
    framing = [key for key, _ in got.heads[0][1] if key in ("content-length", "transfer-encoding")]
    equal(framing, [], "no framing on an answer to CONNECT (RFC 9110 9.3.6)")
    equal(got.json["target"], "/echo", "the request inside")


@case("curl -p: CONNECT carries TLS and HTTP/2 from end to end", needs=["curl", "openssl"], direct=False)
def tunnel_tls(lab):
    # curl leaves while the origin's close_notify is under way.
    lab.flags |= {"client_reset"}
    origin = Http(lab, "h2", tls=server_tls("localhost", "h2"))
    got = curl(lab, f"https://localhost:{origin.port}/echo", "-x", f"http://127.0.0.1:{forward(lab)}", "--http2",
               "--cacert", certificates() / "ca.crt")
    equal((got.status, got.counts["version"], got.counts["verify"]), (200, "2", 0), "status, version, verification")


@case("plain HTTP at a gateway is redirected to https", needs=["curl"], direct=False)
def redirect(lab):
    origin = Http(lab, "h1")
    proxy = lab.proxy([{"name": "plain", "mode": "gateway", "httpsRedirect": True, "upstream": "app"}],
                      [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": "http1"}])
    got = curl(lab, f"http://shop.example:{proxy.port('plain')}/a%20b?c=1", "--resolve", f"shop.example:{proxy.port('plain')}:127.0.0.1")
    check(got.status in (301, 308), f"status {got.status}")
    location = got.values("location")
    check(location and location[0].startswith("https://shop.example") and location[0].endswith("/a%20b?c=1"), f"Location: {location}")
    equal(len(origin.seen), 0, "requests that reached the origin")


@case("ALPN chooses the protocol at the gateway", needs=["curl", "openssl"], direct=False, up=BOTH)
def alpn(lab, up):
    origin = Http(lab, up)
    proxy = gateway(lab, [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": PROTOCOL[up]}])
    port = proxy.port("edge")
    trusting = ("--cacert", certificates() / "ca.crt", "--resolve", f"shop.example:{port}:127.0.0.1")
    for word, version in (("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")):
        got = curl(lab, f"https://shop.example:{port}/echo", word, *trusting)
        equal((got.status, got.counts["version"], got.json["protocol"]), (200, version, up), f"{word}: status, version here, version there")
    got = curl(lab, f"https://shop.example:{port}/bytes/8388608", "--http2", *trusting)
    equal(checksum(got.body), checksum(pattern(8 << 20)), "8 MiB over TLS")


@case("the certificate follows the name that the client asks for", needs=["curl", "openssl"], direct=False)
def sni(lab):
    origin = Http(lab, "h1")
    names = ("shop.example", "other.example", "any.wild.example")
    proxy = gateway(lab, [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": "http1"}], names=names)
    port = proxy.port("edge")
    for host in ("shop.example", "other.example", "a.wild.example", "SHOP.example"):
        got = curl(lab, f"https://{host}:{port}/echo", "--cacert", certificates() / "ca.crt", "--resolve", f"{host}:{port}:127.0.0.1")
        equal((got.status, got.counts["verify"]), (200, 0), f"status and verification for {host}")
    equal(curl(lab, f"https://127.0.0.1:{port}/echo", "-k").status, 200, "a client without SNI gets the first certificate")


@case("a gateway tells the origin who asked, and believes a stranger's X-Forwarded-For only as far as it was told", needs=["curl"], direct=False)
def forwarded(lab):
    origin = Http(lab, "h1")
    upstreams = [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": "http1"}]
    proxy = lab.proxy([{"name": "edge", "mode": "gateway", "upstream": "app"},
                       {"name": "behind", "mode": "gateway", "upstream": "app", "trustedHops": 1},
                       {"name": "side", "mode": "inbound", "upstream": "app"}], upstreams)

    def seen(listener, *words):
        return ", ".join(curl(lab, f"http://127.0.0.1:{proxy.port(listener)}/echo", *words).saw("x-forwarded-for")).replace(" ", "")

    spoof = ("-H", "x-forwarded-for: 9.9.9.9, 8.8.8.8")
    equal(seen("edge"), "127.0.0.1", "X-Forwarded-For at the edge")
    check("9.9.9.9" not in seen("edge", *spoof), "a stranger's entry goes")
    check(seen("behind", *spoof).endswith("8.8.8.8,127.0.0.1"), f"behind one trusted proxy: {seen('behind', *spoof)}")
    equal(seen("side"), "", "a sidecar adds none")
    equal(seen("side", *spoof), "9.9.9.9,8.8.8.8", "a sidecar changes none")


@case("a retry on 503 brings the good answer, a POST is not repeated", needs=["curl"], direct=False, down=BOTH)
def retry(lab, down):
    turns = []

    def answer(request):
        turns.append(request.method)
        return Answer(503 if len(turns) % 2 else 200, [("content-length", "0")])

    origin = Http(lab, "h1", answer)
    proxy = lab.proxy([{"name": "edge", "mode": "gateway", "routes": [
        {"name": "all", "match": {"pathPrefix": "/"}, "upstream": "app", "retry": {"attempts": 1, "on": ["503"]}}]}],
        [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": "http1"}])
    equal(curl(lab, f"http://127.0.0.1:{proxy.port('edge')}/", down=down).status, 200, "status of GET")
    equal(turns, ["GET", "GET"], "attempts of GET")
    equal(curl(lab, f"http://127.0.0.1:{proxy.port('edge')}/", "-d", "x", down=down).status, 503, "status of POST")
    equal(turns[2:], ["POST"], "attempts of POST")


@case("a route's timeout ends a request with 504 and frees the origin", needs=["curl"], direct=False, down=BOTH, up=BOTH)
def timeout(lab, down, up):
    lab.flags |= {"request_timeout"}
    origin = Http(lab, up)
    proxy = lab.proxy([{"name": "edge", "mode": "gateway", "routes": [
        {"name": "all", "match": {"pathPrefix": "/"}, "upstream": "app", "timeout": "500ms"}]}],
        [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": PROTOCOL[up]}])
    start = time.monotonic()
    got = curl(lab, f"http://127.0.0.1:{proxy.port('edge')}/slow/3000", down=down)
    equal(got.status, 504, "status")
    check(0.4 < time.monotonic() - start < 1.5, f"after {time.monotonic() - start:.2f} s")
