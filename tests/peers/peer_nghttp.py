"""nghttp2's clients: h2load for the crowd, nghttp for single frames."""

from clients import h2load
from harness import PROTOCOL, case, check, equal
from origins import Http, checksum, pattern
from servers import gateway, nginx_origin

BOTH = ("h1", "h2")
STEADY = "keepalive_requests 1000000; location / { return 200 'steady answer\\n'; }"


@case("h2load: 20,000 requests in 400 streams, all 2xx", needs=["h2load", "nginx"], down=("h2",), up=BOTH)
def crowd(lab, down, up):
    port = lab.front(nginx_origin(lab, up, STEADY), up=up)
    h2load(lab, f"http://127.0.0.1:{port}/", "-c", 4, "-m", 100, count=20_000)


@case("h2load: more streams than the origin takes on one connection", needs=["h2load", "nginx"], down=("h2",), up=("h2",))
def stream_limit(lab, down, up):
    port = lab.front(nginx_origin(lab, up, STEADY + " http2_max_concurrent_streams 8;"), up=up)
    h2load(lab, f"http://127.0.0.1:{port}/", "-c", 2, "-m", 100, count=4_000)


@case("h2load: HTTP/1.1 with many connections", needs=["h2load", "nginx"], down=("h1",), up=BOTH)
def crowd_h1(lab, down, up):
    port = lab.front(nginx_origin(lab, up, STEADY), up=up)
    h2load(lab, f"http://127.0.0.1:{port}/", "--h1", "-c", 50, count=10_000)


@case("h2load: over TLS at the gateway", needs=["h2load", "nginx", "openssl"], direct=False, up=BOTH)
def crowd_tls(lab, up):
    upstream = {"name": "app", "addresses": [f"127.0.0.1:{nginx_origin(lab, up, STEADY)}"], "protocol": PROTOCOL[up]}
    port = gateway(lab, [upstream]).port("edge")
    report = h2load(lab, f"https://127.0.0.1:{port}/", "-c", 20, "-m", 20, count=8_000)
    check("Application protocol: h2" in report, report[:700])


@case("h2load: 2,000 uploads of 20 kB", needs=["h2load"], down=("h2",), up=BOTH)
def uploads(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    file = lab.write("upload", pattern(20_000))
    h2load(lab, f"http://127.0.0.1:{port}/echo", "-c", 2, "-m", 10, "-d", file, count=2_000)
    equal({checksum(request.body) for request in origin.seen}, {checksum(pattern(20_000))}, "what the origin got")


@case("nghttp: trailers of an upload reach the origin", needs=["nghttp"], down=("h2",), up=BOTH)
def trailers(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    file = lab.write("upload", pattern(40_000))
    done = lab.run("nghttp", "-nv", "--no-content-length", "-d", file, "-H", "te: trailers", "-H", "trailer: x-sum", "--trailer", "x-sum: 42", f"http://127.0.0.1:{port}/trailers")
    equal((origin.seen[0].body, origin.seen[0].trailers), (pattern(40_000), [("x-sum", "42")]), "content and trailers at the origin")
    check(":status: 200" in done.out, done.out[-700:])
    check("x-checksum: abc" in done.out, "the answer's trailers are shown (RFC 9110 6.5)\n" + done.out[-700:])


@case("nghttp: many streams at once, with a dependency tree", needs=["nghttp"], down=("h2",), up=BOTH)
def streams(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    urls = [f"http://127.0.0.1:{port}/bytes/{1000 * (number + 1)}" for number in range(30)]
    done = lab.run("nghttp", "-v", "-n", *urls)
    equal(done.out.count(":status: 200"), 30, "answers with 200")
    equal(len(origin.seen), 30, "requests at the origin")
    check("GOAWAY" not in done.out.split("send GOAWAY")[0], "no GOAWAY before the client's own")


@case("nghttp: tiny windows and a padded, continued head", needs=["nghttp"], down=("h2",), up=BOTH)
def windows(lab, down, up):
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    done = lab.run("nghttp", "-v", "-n", "-w", "10", "-W", "10", "-b", "200", "-H", "x-large: " + "b" * 20_000, f"http://127.0.0.1:{port}/bytes/50000")
    check(":status: 200" in done.out, done.out[-700:])
    equal(origin.seen[0].values("x-large"), ["b" * 20_000], "a head longer than a frame (RFC 9113 6.10)")


@case("nghttp: an upgrade from HTTP/1.1 is answered in a protocol that it reads", needs=["nghttp"], down=("h1",), up=("h1",), direct=False)
def upgrade(lab, down, up):
    """nghttp cannot go on without h2; what counts is a clean HTTP/1.1 answer (RFC 9110 7.8: a server may ignore Upgrade)."""
    origin = Http(lab, up)
    port = lab.front(origin.port, up=up)
    done = lab.run("nghttp", "-u", "-v", "-n", f"http://127.0.0.1:{port}/bytes/10", code=None)
    check("HTTP/1.1 200" in done.out + done.err or ":status: 200" in done.out, done.out[-500:] + done.err[-500:])
