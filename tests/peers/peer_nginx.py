"""nginx as origin (connections that it closes early, gzip, large files, its own HTTP/2) and as the client in front."""

import http.client
import threading
import time

import h2.events
import h2.exceptions

from clients import curl, h2load, wrk
from harness import case, check, equal
from origins import H2, Http, checksum, connect, pattern, text
from servers import certificate, certificates, nginx, nginx_origin, ports

BOTH = ("h1", "h2")


SHORT = "keepalive_requests 7; keepalive_timeout 1s; location / { return 200 'short lives\\n'; }"
IMPATIENT = "keepalive_requests 100; keepalive_timeout 20ms; location / { return 200 'short lives\\n'; }"


@case("no request fails while nginx closes connections after 7 requests", needs=["nginx", "wrk"])
def short_lives(lab):
    port = lab.front(nginx_origin(lab, "h1", SHORT), up="h1")
    count, found = wrk(lab, f"http://127.0.0.1:{port}/", seconds=4)
    equal(found, [], "failures that wrk saw")
    check(count > 1000, f"wrk made only {count} requests")


@case("no request fails while nginx closes idle connections after 20 ms", needs=["nginx", "curl"], direct=False)
def idle_closed(lab):
    # Pauses just around the origin's patience: the reused connection is closed while the request is under way.
    port = lab.front(nginx_origin(lab, "h1", IMPATIENT), up="h1")
    wrong = []

    def ask(shift):
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for turn in range(60):
            try:
                link.request("GET", "/")
                answer = link.getresponse()
                answer.read()
                if answer.status != 200:
                    wrong.append(answer.status)
            except OSError as error:
                wrong.append(repr(error))
                return
            time.sleep(0.0175 + (turn + shift) % 30 / 5000)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    equal(wrong, [], "answers other than 200")


@case("no HTTP/2 request fails while nginx closes connections after 7 requests", needs=["nginx", "h2load"], up=BOTH, direct=False)
def short_lives_h2(lab, up):
    port = lab.front(nginx_origin(lab, up, SHORT), up=up)
    h2load(lab, f"http://127.0.0.1:{port}/", "-c", 4, "-m", 10, count=4000)


@case("gzip of nginx passes bit by bit", needs=["nginx", "curl"], down=BOTH, up=BOTH)
def gzip(lab, down, up):
    lab.write("text.txt", "all work and no play\n" * 20_000)
    port = lab.front(nginx_origin(lab, up, "gzip on; gzip_types text/plain;"), up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/text.txt", "--compressed", down=down)
    equal((got.status, got.values("content-encoding"), got.body), (200, ["gzip"], b"all work and no play\n" * 20_000), "the answer")
    equal(got.values("content-length"), [], "no length is invented")


@case("range, conditional and HEAD requests keep their meaning", needs=["nginx", "curl"], down=BOTH, up=BOTH)
def ranges(lab, down, up):
    lab.write("file.bin", pattern(100_000))
    port = lab.front(nginx_origin(lab, up, ""), up=up)
    url = f"http://127.0.0.1:{port}/file.bin"
    got = curl(lab, url, "-r", "500-999", down=down)
    equal((got.status, got.values("content-range"), got.body), (206, ["bytes 500-999/100000"], pattern(100_000)[500:1000]), "a range")
    got = curl(lab, url, "-r", "200000-", down=down)
    equal(got.status, 416, "a range beyond the end")
    head = curl(lab, url, "-I", down=down)
    equal((head.status, head.values("content-length")), (200, ["100000"]), "HEAD")
    got = curl(lab, url, "-H", f"if-none-match: {head.values('etag')[0]}", down=down)
    equal((got.status, got.body, got.values("etag")), (304, b"", head.values("etag")), "304")


@case("200 MiB come from nginx with the same checksum", needs=["nginx", "curl"], down=BOTH, up=BOTH)
def large_file(lab, down, up):
    content = pattern(200 << 20)
    lab.write("large.bin", content)
    port = lab.front(nginx_origin(lab, up, "sendfile on;"), up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/large.bin", down=down, timeout=55)
    equal((got.status, len(got.body), checksum(got.body)), (200, len(content), checksum(content)), "the file")


@case("an upload that nginx stores is the one that was sent", needs=["nginx", "curl"], down=BOTH, up=BOTH)
def upload(lab, down, up):
    size = 64 << 20
    file = lab.write("source", pattern(size))
    port = lab.front(nginx_origin(lab, up, "location /up/ { dav_methods PUT; create_full_put_path on; client_max_body_size 100m; }"), up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/up/stored", "-T", file, "-H", "expect:", down=down, timeout=55)
    equal(got.status, 201, "status")
    equal(checksum(lab.path("up/stored").read_bytes()), checksum(pattern(size)), "the file")


@case("nginx's 413 within an upload reaches the client", needs=["nginx", "curl"], down=("h1",), up=BOTH)
def refused_upload(lab, down, up):
    lab.flags |= {"client_reset"}
    file = lab.write("source", pattern(32 << 20))
    port = lab.front(nginx_origin(lab, up, "location / { dav_methods PUT; client_max_body_size 1m; }"), up=up)
    got = curl(lab, f"http://127.0.0.1:{port}/stored", "-T", file, "-H", "expect:", down=down, code=None)
    equal(got.heads and got.status, 413, f"status (RFC 9110 15.5.14); curl ended with {got.code}")


@case("nginx's 413 within an upload reaches an HTTP/2 client", needs=["nginx"], down=("h2",), up=BOTH)
def refused_upload_h2(lab, down, up):
    lab.flags |= {"client_reset"}
    # curl 7.88 forgets the head when a reset follows it, the h2 package does not.
    port = lab.front(nginx_origin(lab, up, "location / { dav_methods PUT; client_max_body_size 1m; }"), up=up)
    link = H2(connect(port))
    stream = link.open([(":method", "PUT"), (":scheme", "http"), (":authority", "a"), (":path", "/stored"), ("content-length", str(32 << 20))], end=False)
    threading.Thread(target=pour, args=(stream, 32 << 20), daemon=True).start()
    event = stream.next(h2.events.ResponseReceived, h2.events.StreamReset)
    check(isinstance(event, h2.events.ResponseReceived) and dict(text(event.headers))[":status"] == "413", f"413, not {event}")
    link.close()


def pour(stream, size):
    try:
        stream.send_data(pattern(size), end=True)
    except (OSError, h2.exceptions.ProtocolError):
        pass


@case("TLS origin: verified by name, HTTP/2 by ALPN", needs=["nginx", "curl", "openssl"], direct=False, down=BOTH)
def tls_origin(lab, down):
    lab.flags |= {"tls_failed"}
    port, = ports(1)
    pair = certificate("shop.example")
    nginx(lab, f"server {{ listen 127.0.0.1:{port} ssl http2; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {pair['cert']}; ssl_certificate_key {pair['key']};"
               f" location / {{ return 200 '$server_protocol $ssl_protocol $ssl_server_name $ssl_alpn_protocol\\n'; }} }}", ports=[port])
    trust = {"rootFile": str(certificates() / "ca.crt")}
    for protocol, version in (("http1", b"HTTP/1.1"), ("http2", b"HTTP/2.0"), ("auto", b"HTTP/")):
        front = lab.front(port, upstream={"protocol": protocol, "tls": {**trust, "serverName": "shop.example"}})
        got = curl(lab, f"http://127.0.0.1:{front}/", down=down)
        check(got.status == 200 and got.body.startswith(version) and b"TLSv1.3 shop.example" in got.body, f"{protocol}: {got.status} {got.body}")
    front = lab.front(port, upstream={"tls": {**trust, "serverName": "other.example"}})
    got = curl(lab, f"http://127.0.0.1:{front}/", down=down)
    check(got.status in (502, 503), f"a certificate of another name: {got.status} {got.body}")


@case("nginx in front: its requests pass in HTTP/1.0 and over kept connections", needs=["nginx", "curl", "wrk"], up=BOTH, down=("h1",))
def client(lab, down, up):
    target = Http(lab, up)
    front = lab.front(target.port, up=up)
    port, = ports(1)
    nginx(lab, f"""
        upstream mesh {{ server 127.0.0.1:{front}; keepalive 16; }}
        server {{
            listen 127.0.0.1:{port};
            location /old/ {{ proxy_pass http://127.0.0.1:{front}/; }}
            location /new/ {{ proxy_pass http://mesh/; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off; }}
        }}""", ports=[port])
    for path, size in (("old", 50_000), ("new", 5_000_000)):
        got = curl(lab, f"http://127.0.0.1:{port}/{path}/pieces/{size}")
        equal((got.status, checksum(got.body)), (200, checksum(pattern(size))), f"a download by /{path}")
        file = lab.write("source", pattern(300_000))
        got = curl(lab, f"http://127.0.0.1:{port}/{path}/echo", "--data-binary", f"@{file}", "-H", "expect:")
        equal((got.status, got.json["length"], got.json["sha256"]), (200, 300_000, checksum(pattern(300_000))), f"an upload by /{path}")
    _, found = wrk(lab, f"http://127.0.0.1:{port}/new/bytes/100", connections=16, seconds=2)
    equal(found, [], "failures that wrk saw")


@case("wrk: thousands of requests on kept connections, none fails", needs=["nginx", "wrk"], up=BOTH, down=("h1",))
def load(lab, down, up):
    port = lab.front(nginx_origin(lab, up, "keepalive_requests 1000000; location / { return 200 'x'; }"), up=up)
    count, found = wrk(lab, f"http://127.0.0.1:{port}/", connections=64)
    equal(found, [], "failures that wrk saw")
    check(count > 2000, f"wrk made only {count} requests")
