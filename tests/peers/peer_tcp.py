"""Bytes without HTTP: servers that speak first, halves that close one after the other, long transfers, smtplib and socat."""

import smtplib
import socket
import struct
import threading
import time

from harness import case, check, equal, free_port, wait
from origins import Http, Origin, checksum, connect, pattern, read_all, read_until

WAYS = ("opaque", "detect")


def smtp(peer, _):
    """Enough of a mail server for smtplib."""
    peer.sendall(b"220 mail.example ready\r\n")
    mail, within = b"", False
    while line := read_until(peer, b"\r\n"):
        verb = line[:4].upper().strip()
        if within:
            within = line != b".\r\n"
            mail += line if within else b""
            if not within:
                peer.sendall(b"250 queued %d\r\n" % len(mail))
        elif verb == b"DATA":
            within = True
            peer.sendall(b"354 go on\r\n")
        elif verb == b"QUIT":
            return peer.sendall(b"221 bye\r\n")
        else:
            peer.sendall(b"250 fine\r\n")


@case("smtplib delivers a mail to a server that speaks first", down=WAYS)
def mail(lab, down):
    port = lab.front(Origin(lab, smtp).port, protocol=down)
    start = time.monotonic()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        check(time.monotonic() - start < (0.3 if down == "opaque" else 1.6), f"the greeting took {time.monotonic() - start:.2f} s")
        client.sendmail("a@example", ["b@example"], "subject: hello\r\n\r\n" + "line\r\n" * 5000)


@case("a port found to speak first is remembered: the second greeting does not wait")
def remembered(lab):
    port = lab.front(Origin(lab, smtp).port, protocol="detect")
    for turn in range(3):
        start = time.monotonic()
        with connect(port) as peer:
            equal(read_until(peer, b"\n"), b"220 mail.example ready\r\n", "the greeting")
        took = time.monotonic() - start
        check(took < (1.6 if turn == 0 else 0.3), f"greeting {turn + 1} took {took:.2f} s")


@case("a binary greeting like MySQL's arrives whole and the login after it too", down=WAYS)
def binary_greeting(lab, down):
    greeting = b"\x4a\x00\x00\x00\x0a8.0.36\x00" + bytes(range(66))

    def handle(peer, _):
        peer.sendall(greeting)
        peer.sendall(b"OK" + peer.recv(100))

    port = lab.front(Origin(lab, handle).port, protocol=down)
    with connect(port) as peer:
        equal(read_until(peer, greeting), greeting, "the greeting")
        peer.sendall(b"\x20\x00\x00\x01login")
        equal(peer.recv(100), b"OK\x20\x00\x00\x01login", "the answer")


def summing(peer, _):
    """Answers only when the client has said everything."""
    content = read_all(peer)
    peer.sendall(f"{len(content)} {checksum(content)}\n".encode())


@case("a client that closes its half still gets the answer", down=WAYS)
def half_close(lab, down):
    port = lab.front(Origin(lab, summing).port, protocol=down)
    for size in (10, 3_000_000):
        with connect(port) as peer:
            peer.sendall(b"\x01" + pattern(size))
            peer.shutdown(socket.SHUT_WR)
            equal(read_all(peer).split()[0], b"%d" % (size + 1), "the answer after the half-close")


@case("a client that closes its half without a word still gets the answer", down=WAYS)
def silent_half_close(lab, down):
    port = lab.front(Origin(lab, summing).port, protocol=down)
    with connect(port) as peer:
        peer.shutdown(socket.SHUT_WR)
        equal(read_all(peer).split()[:1], [b"0"], "the answer after the half-close")


@case("socat closes its half and prints the answer", needs=["socat"], down=WAYS)
def socat(lab, down):
    port = lab.front(Origin(lab, summing).port, protocol=down)
    done = lab.run("socat", "-t", "5", "-", f"TCP:127.0.0.1:{port}", input=b"\x01hello")
    equal(done.out, f"6 {checksum(bytes([1]) + b'hello')}\n", "what socat printed")


@case("a server that closes its half still hears the client", down=WAYS)
def server_half_close(lab, down):
    heard = []

    def handle(peer, _):
        peer.sendall(b"I am done\n")
        peer.shutdown(socket.SHUT_WR)
        heard.append(read_all(peer))

    port = lab.front(Origin(lab, handle).port, protocol=down)
    with connect(port) as peer:
        equal(read_all(peer), b"I am done\n", "the server's words, and its end")
        for _ in range(5):
            peer.sendall(b"x" * 1000)
            time.sleep(0.05)
    wait(lambda: heard, "the server reads to the end", timeout=5)
    equal(len(heard[0]), 5000, "bytes after the server's half-close")


@case("200 MiB go each way at once with the same checksum", down=WAYS)
def long_transfer(lab, down):
    size = 200 << 20
    content = pattern(size)
    heard = []

    def handle(peer, _):
        sender = threading.Thread(target=lambda: (peer.sendall(content), peer.shutdown(socket.SHUT_WR)))
        sender.start()
        heard.append(checksum(read_all(peer)))
        sender.join(30)

    port = lab.front(Origin(lab, handle).port, protocol=down)
    with connect(port, timeout=30) as peer:
        sender = threading.Thread(target=lambda: (peer.sendall(b"\x00" + content), peer.shutdown(socket.SHUT_WR)))
        sender.start()
        check(checksum(read_all(peer)) == checksum(content), "the download")
        sender.join(30)
        wait(lambda: heard, "the server has heard all", timeout=10)
    check(heard[0] == checksum(b"\x00" + content), "the upload")


@case("what looks like HTTP at first and is not stays whole")
def nearly_http(lab):
    def echo(peer, _):
        while piece := peer.recv(4096):
            peer.sendall(piece)

    port = lab.front(Origin(lab, echo).port, protocol="detect")
    for first in (b"*1\r\n$4\r\nPING\r\n", b"PING\r\n", b"\x16\x03", b"\x16", b"\x16\x03\x01\x00\x05", b"GETTING\x00", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\x00", b"\r\n\r\n\x00"):
        with connect(port, timeout=8) as peer:
            peer.sendall(first)
            equal(read_until(peer, first), first, f"the echo of {first}")
            peer.sendall(b"more\n")
            equal(read_until(peer, b"\n"), b"more\n", f"what follows {first}")


@case("bytes that come one by one are recognised and none is lost")
def one_by_one(lab):
    origin = Http(lab, "h1")
    port = lab.front(origin.port, up="h1", protocol="detect")
    with connect(port) as peer:
        for byte in b"GET /bytes/5 HTTP/1.1\r\nhost: a\r\n\r\n":
            peer.sendall(bytes([byte]))
            time.sleep(0.005)
        check(read_until(peer, b"\r\n\r\n").startswith(b"HTTP/1.1 200"), "status")
        equal(read_until(peer, pattern(5)), pattern(5), "the body")


@case("a reset of the client reaches the server, a reset of the server the client", down=WAYS)
def resets(lab, down):
    lab.flags |= {"client_reset", "upstream_reset", "upstream_closed"}
    seen = []

    def handle(peer, _):
        if peer.recv(100) == b"\x01reset me":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return peer.close()
        try:
            seen.append(peer.recv(100))
        except ConnectionResetError:
            seen.append("reset")

    port = lab.front(Origin(lab, handle).port, protocol=down)
    with connect(port, timeout=5) as peer:
        peer.sendall(b"\x01reset me")
        try:
            equal(peer.recv(100), b"", "an end at the least")
        except ConnectionResetError:
            pass
    peer = connect(port)
    peer.sendall(b"\x01hello")
    time.sleep(0.2)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    wait(lambda: seen, "the server sees the client's end", timeout=5)
    check(seen[0] in (b"", "reset"), f"an end, not {seen[0]}")


@case("an origin that refuses the connection ends the client's", direct=False, down=WAYS)
def refused(lab, down):
    lab.flags |= {"connect_failed", "no_healthy_endpoint"}
    port = lab.front(free_port(), protocol=down)
    start = time.monotonic()
    with connect(port, timeout=5) as peer:
        try:
            peer.sendall(b"\x01hello")
            equal(peer.recv(100), b"", "nothing")
        except ConnectionResetError:
            pass
    check(time.monotonic() - start < 2, f"after {time.monotonic() - start:.2f} s")
