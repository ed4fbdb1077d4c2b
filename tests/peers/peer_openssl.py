"""openssl's s_client and s_server: passthrough by SNI, versions and ALPN at the gateway, unusual ClientHellos."""

import shutil
import socket
import ssl
import time

from harness import PROTOCOL, case, check, equal, free_port
from origins import Http, connect
from servers import certificates, gateway

NAMES = ("shop.example", "other.example")


def s_server(lab, name, *words):
    """An origin that sends back each line reversed, and whose certificate tells which one it is."""
    port = free_port()
    folder = certificates()
    lab.spawn("s_server", ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", folder / f"{name}.crt", "-key", folder / f"{name}.key",
                           "-rev", "-quiet", *words], ports=[port])
    return port


# s_client leaves at the end of its input unless told not to; s_server -rev ends the talk at this word.
LINES = b"hello\nCLOSE\n"


def s_client(lab, port, *words, input=b"Q\n", code=0, timeout=10):
    if input == LINES:
        words = (*words, "-ign_eof")
    done = lab.run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certificates() / "ca.crt", *words, input=input, code=code, timeout=timeout)
    return done.out + done.err


def passthrough(lab, *words, **listener):
    """Two origins behind a listener that reads nothing but the name."""
    origins = {name: s_server(lab, name, *words) for name in NAMES}
    return lab.proxy(
        [{"name": "tls", "mode": "gateway", "protocol": "tls",
          "routes": [{"name": name.split(".")[0], "match": {"sni": name}, "upstream": name.split(".")[0]} for name in NAMES], **listener}],
        [{"name": name.split(".")[0], "addresses": [f"127.0.0.1:{port}"]} for name, port in origins.items()]).port("tls")


@case("TLS passes by name to one of two origins, unopened", needs=["openssl"], direct=False, down=("tls1_2", "tls1_3"))
def by_name(lab, down):
    port = passthrough(lab)
    for name in NAMES:
        report = s_client(lab, port, f"-{down}", "-servername", name, "-verify_hostname", name, "-verify_return_error", "-brief", input=LINES)
        check(f"CN = {name}" in report and "Verification: OK" in report, f"the certificate of {name}:\n{report}")
        check("olleh" in report, f"the origin's answer:\n{report}")


@case("s_server meets s_client: what the passthrough cases rest on", needs=["openssl"])
def meets(lab):
    port = s_server(lab, "shop.example") if lab.direct else passthrough(lab)
    report = s_client(lab, port, "-servername", "shop.example", "-verify_hostname", "shop.example", "-verify_return_error", "-brief", input=LINES)
    check("CN = shop.example" in report and "olleh" in report, report)


@case("a name without a route, or no name, ends the connection", needs=["openssl"], direct=False)
def unknown_name(lab):
    lab.flags |= {"no_route"}
    port = passthrough(lab)
    for words in (("-servername", "nobody.example"), ("-noservername",)):
        start = time.monotonic()
        report = s_client(lab, port, *words, code=1)
        check("CN = " not in report, f"{words}: no origin's certificate:\n{report}")
        check(time.monotonic() - start < 3, "at once")


@case("a client's certificate and a resumed session pass through", needs=["openssl"], direct=False)
def end_to_end(lab):
    folder = certificates()
    port = passthrough(lab, "-Verify", "1", "-CAfile", folder / "ca.crt")
    session = lab.path("session")
    own = ("-servername", "shop.example", "-tls1_2", "-cert", folder / "localhost.crt", "-key", folder / "localhost.key")
    s_client(lab, port, *own, "-sess_out", session)
    report = s_client(lab, port, *own, "-sess_in", session)
    check("Reused, TLSv1.2" in report, report[:1500])


@case("a detecting listener passes TLS on to its upstream", needs=["openssl"])
def detected(lab):
    port = lab.front(s_server(lab, "shop.example"), protocol="detect")
    report = s_client(lab, port, "-servername", "shop.example", "-brief", input=LINES)
    check("CN = shop.example" in report and "olleh" in report, report)


def hello(name, alpn=()):
    """A real ClientHello, as bytes, and the object that goes on with the handshake."""
    context = ssl.create_default_context(cafile=str(certificates() / "ca.crt"))
    context.set_alpn_protocols(list(alpn)) if alpn else None
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(into, out, server_hostname=name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read(), into, out, session


def finish(peer, into, out, session):
    """Ends the handshake and says a line; returns the answer."""
    while True:
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            peer.sendall(out.read())
            piece = peer.recv(65_536)
            check(piece, "the handshake goes on")
            into.write(piece)
    session.write(b"hello\n")
    peer.sendall(out.read())
    while True:
        try:
            return session.read(100)
        except ssl.SSLWantReadError:
            piece = peer.recv(65_536)
            check(piece, "an answer")
            into.write(piece)


# 60 names of 200 bytes: a hello of some 12 KiB.
LONG_ALPN = [f"protocol-{number:03}-".ljust(200, "x") for number in range(60)]


@case("a ClientHello in many segments, or of 12 KiB, still finds its origin", needs=["openssl"])
def long_hello(lab):
    port = s_server(lab, "other.example") if lab.direct else passthrough(lab)
    for alpn, size in (((), 20), (LONG_ALPN, 1200)):
        first, *rest = hello("other.example", alpn)
        check(len(first) > (12_000 if alpn else 200), f"the hello has {len(first)} bytes")
        with connect(port, timeout=8) as peer:
            for at in range(0, len(first), size):
                peer.sendall(first[at:at + size])
                time.sleep(0.01)
            equal(finish(peer, *rest), b"olleh\n", f"the origin's answer to a hello of {len(first)} bytes in pieces of {size}")


@case("a hello split into several TLS records still finds its origin", needs=["openssl"])
def records(lab):
    port = s_server(lab, "other.example") if lab.direct else passthrough(lab)
    first, *rest = hello("other.example")
    content = first[5:]
    pieces = [content[:3], content[3:60], content[60:]]
    with connect(port, timeout=8) as peer:
        peer.sendall(b"".join(first[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces))
        equal(finish(peer, *rest), b"olleh\n", "the origin's answer (RFC 8446 5.1)")


@case("a hello that never ends is given up", direct=False, needs=["openssl"])
def endless_hello(lab):
    lab.flags |= {"too_large", "no_route", "bad_request", "protocol_error"}
    port = passthrough(lab)
    with connect(port, timeout=15) as peer:
        # One record says 16 KiB and the message claims 1 MiB.
        try:
            for _ in range(8):
                peer.sendall(b"\x16\x03\x01\x40\x00" + b"\x01\x0f\xff\xff" + bytes(16_380))
                time.sleep(0.02)
            answer = peer.recv(100)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
    check(len(answer) < 20, f"an end or an alert, not {answer}")


def edge(lab, up="h1"):
    origin = Http(lab, up)
    return gateway(lab, [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": PROTOCOL[up]}],
                   names=("shop.example", "other.example")).port("edge")


@case("the gateway speaks TLS 1.2 and 1.3 and nothing older", needs=["openssl"], direct=False)
def versions(lab):
    lab.flags |= {"tls_failed", "bad_request"}
    port = edge(lab)
    for word, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        report = s_client(lab, port, word, "-servername", "shop.example", "-verify_return_error", "-brief")
        check(f"Protocol version: {version}" in report and "Verification: OK" in report, report)
    for word in ("-tls1", "-tls1_1"):
        report = s_client(lab, port, word, "-cipher", "ALL:@SECLEVEL=0", "-servername", "shop.example", "-brief", code=1)
        check("alert" in report.lower(), f"{word} is refused with an alert (RFC 8446 6.2):\n{report}")


@case("ALPN at the gateway: h2 before http/1.1, an unknown list is refused, none is HTTP/1.1", needs=["openssl"], direct=False)
def alpn(lab):
    lab.flags |= {"tls_failed", "bad_request"}
    port = edge(lab)
    for offer, chosen in (("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1"), ("h2", "h2"), ("spdy/3,http/1.1", "http/1.1")):
        report = s_client(lab, port, "-servername", "shop.example", "-alpn", offer)
        check(f"ALPN protocol: {chosen}" in report, f"{offer} → {chosen}:\n{report[-1500:]}")
    report = s_client(lab, port, "-servername", "shop.example")
    check("No ALPN negotiated" in report, report[-1500:])
    report = s_client(lab, port, "-servername", "shop.example", "-alpn", "spdy/3,unknown", code=None)
    check("no application protocol" in report.lower() or "No ALPN negotiated" in report, f"an alert (RFC 7301 3.2) or none chosen:\n{report[-1500:]}")
    report = s_client(lab, port, "-servername", "shop.example", "-alpn", ",".join(LONG_ALPN[:55] + ["http/1.1"]))
    check("ALPN protocol: http/1.1" in report, f"a long list:\n{report[-1500:]}")


@case("s_client speaks HTTP/1.1 by hand through the gateway, session after session", needs=["openssl"], direct=False, up=("h1", "h2"))
def by_hand(lab, up):
    port, session = edge(lab, up), lab.path("session")
    request = b"GET /bytes/5 HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n"
    for version in ("-tls1_2", "-tls1_3"):
        report = s_client(lab, port, "-servername", "shop.example", version, "-ign_eof", "-sess_out", session, input=request)
        check("HTTP/1.1 200" in report, report[-1500:])
        report = s_client(lab, port, "-servername", "shop.example", version, "-ign_eof", "-sess_in", session, input=request)
        check("HTTP/1.1 200" in report and "Reused, " in report, "resumption:\n" + report[-1500:])


@case("a certificate that changes on disk is served without a restart", needs=["openssl"], direct=False)
def reload(lab):
    folder = certificates()
    for end in ("crt", "key"):
        shutil.copy(folder / f"shop.example.{end}", lab.path(f"tls.{end}"))
    origin = Http(lab, "h1")
    port = gateway(lab, [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"]}],
                   tls={"certificates": [{"cert": str(lab.path("tls.crt")), "key": str(lab.path("tls.key"))}]}).port("edge")
    check("CN = shop.example" in s_client(lab, port, "-brief"), "the first certificate")
    for end in ("key", "crt"):
        shutil.copy(folder / f"other.example.{end}", lab.path(f"new.{end}"))
        lab.path(f"new.{end}").rename(lab.path(f"tls.{end}"))
    deadline = time.monotonic() + 15
    while "CN = other.example" not in (report := s_client(lab, port, "-brief")):
        check(time.monotonic() < deadline, f"the second certificate within 15 s:\n{report}")
        time.sleep(0.5)


@case("junk at a TLS port is refused and harms nobody", direct=False, needs=["openssl"])
def junk(lab):
    lab.flags |= {"tls_failed", "protocol_error", "bad_request", "client_reset"}
    port = edge(lab)
    for first in (b"\x16\x03\x01\xff\xff" + bytes(300), b"\x80\x2e\x01\x00\x02" + bytes(40), b"SSH-2.0-x\r\n", b"\x15\x03\x01\x00\x02\x02\x28"):
        with connect(port, timeout=5) as peer:
            peer.sendall(first)
            try:
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1000):
                    pass
            except OSError:
                pass
    check("Verification: OK" in s_client(lab, port, "-servername", "shop.example", "-brief"), "the next client is served")
