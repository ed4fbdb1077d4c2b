"""HAProxy as origin (HTTP/1 with short patience, HTTP/2 in cleartext) and as the client in front."""

from clients import curl, h2load, wrk
from harness import case, check, equal, free_port, wait
from origins import Http, checksum, pattern
from servers import haproxy, ports

BOTH = ("h1", "h2")


def origin(lab, protocol, *, settings=""):
    port, = ports(1)
    haproxy(lab, f"""
frontend origin
    bind 127.0.0.1:{port} backlog 4096 {"proto h2" if protocol == "h2" else ""}
    {settings}
    http-request return status 404 content-type text/plain string "none" if {{ path /none }}
    http-request return status 200 content-type text/plain lf-string "%[method] %[req.ver] %[path]" hdr x-host "%[req.hdr(host)]"
""", ports=[port])
    return port


@case("answers come from HAProxy", needs=["haproxy", "curl"], down=BOTH, up=BOTH)
def answers(lab, down, up):
    port = lab.front(origin(lab, up), up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/a", "-H", "host: b.example", down=down)
    equal((got.status, got.body, got.values("x-host")), (200, {"h1": b"GET 1.1 /a", "h2": b"GET 2.0 /a"}[up], ["b.example"]), "the answer")
    equal(curl(lab, f"http://127.0.0.1:{port}/none", down=down).status, 404, "status")


@case("no request fails while HAProxy closes idle connections after 30 ms", needs=["haproxy", "wrk"])
def idle_closed(lab):
    port = lab.front(origin(lab, "h1", settings="timeout http-keep-alive 30ms"), up="h1")
    count, found = wrk(lab, f"http://127.0.0.1:{port}/")
    equal(found, [], "failures that wrk saw")
    check(count > 1000, f"wrk made only {count} requests")


@case("no request fails while HAProxy closes every connection after one answer", needs=["haproxy", "wrk"], direct=False)
def closed(lab):
    port = lab.front(origin(lab, "h1", settings="option httpclose"), up="h1")
    _, found = wrk(lab, f"http://127.0.0.1:{port}/", connections=16, seconds=2)
    equal(found, [], "failures that wrk saw")


@case("h2load: thousands of requests to HAProxy, all 2xx", needs=["haproxy", "h2load"], down=("h2",), up=BOTH)
def load(lab, down, up):
    port = lab.front(origin(lab, up), up=up)
    h2load(lab, f"http://127.0.0.1:{port}/", "-c", 4, "-m", 25, count=10_000)


@case("HAProxy in front: its requests pass in its protocol", needs=["haproxy", "curl", "wrk"], down=BOTH, up=BOTH)
def client(lab, down, up):
    target = Http(lab, up)
    front = lab.front(target.port, up=up)
    port, = ports(1)
    haproxy(lab, f"""
frontend outside
    bind 127.0.0.1:{port}
    default_backend mesh
backend mesh
    http-reuse always
    server mesh 127.0.0.1:{front} {"proto h2" if down == "h2" else ""}
""", ports=[port])
    got = curl(lab, f"http://127.0.0.1:{port}/pieces/3000000")
    equal((got.status, checksum(got.body)), (200, checksum(pattern(3_000_000))), "a download")
    file = lab.write("source", pattern(3_000_000))
    got = curl(lab, f"http://127.0.0.1:{port}/echo", "--data-binary", f"@{file}", "-H", "expect:")
    equal((got.status, got.json["length"], got.json["sha256"]), (200, 3_000_000, checksum(pattern(3_000_000))), "an upload")
    got = curl(lab, f"http://127.0.0.1:{port}/trailers", "-H", "te: trailers")
    equal((got.status, got.body), (200, b"with trailers\n"), "an answer with trailers")
    _, found = wrk(lab, f"http://127.0.0.1:{port}/bytes/100", connections=16, seconds=2)
    equal(found, [], "failures that wrk saw")


@case("HAProxy's health check finds the proxy's listener up, and down when its origin is", needs=["haproxy", "curl"], direct=False)
def health(lab):
    lab.flags |= {"connect_failed", "no_healthy_endpoint"}
    good, bad = lab.front(origin(lab, "h1"), up="h1"), lab.front(free_port(), up="h1")
    port, = ports(1)
    haproxy(lab, f"""
frontend outside
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain lf-string "%[nbsrv(good)] %[nbsrv(bad)]"
backend good
    option httpchk GET /
    server mesh 127.0.0.1:{good} check inter 100ms
backend bad
    option httpchk GET /
    server mesh 127.0.0.1:{bad} check inter 100ms fall 1
""", ports=[port])
    wait(lambda: curl(lab, f"http://127.0.0.1:{port}/").body == b"1 0", "one backend up, the other down", timeout=5)
