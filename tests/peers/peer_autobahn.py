"""The Autobahn test suite's WebSocket cases, run by kosoku: each case meets the same echo server directly and through the
proxy, and the two tables have to be the same, case by case, with the close codes and what came back."""

import asyncio
import socket

import kosoku
import wsproto
import wsproto.connection
import wsproto.utilities
from wsproto.events import AcceptConnection, CloseConnection, Message, Ping, Request
from wsproto.extensions import PerMessageDeflate

from harness import case, check, equal
from origins import Origin, read_all

# What the suite asks for in words; a case that the echo server itself does not pass says nothing about the proxy.
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
TOGETHER = 8
LINGER = 2


@case("framing, pings, fragments, UTF-8, closing: the same table as without the proxy", direct=False, seconds=120)
def protocol(lab):
    same_table(lab, ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"], count=247)


@case("messages up to 16 MiB, whole and in fragments of any size: the same table as without the proxy", direct=False, full=True, seconds=600)
def limits(lab):
    same_table(lab, ["9.*"], count=54, together=2)


@case("a few large messages: the same table as without the proxy", direct=False, seconds=120)
def limits_briefly(lab):
    same_table(lab, ["9.1.1", "9.1.3", "9.2.2", "9.3.5", "9.4.6", "9.5.3", "9.6.4", "9.7.1", "9.8.1"], count=9)


@case("compressed messages: the same table as without the proxy", direct=False, full=True, seconds=1800)
def compression(lab):
    same_table(lab, ["12.*", "13.*"], count=216, together=2)


@case("a few compressed messages of each kind: the same table as without the proxy", direct=False, seconds=120)
def compression_briefly(lab):
    same_table(lab, [f"12.{kind}.1" for kind in range(1, 6)] + [f"13.{kind}.1" for kind in range(1, 8)] + ["12.1.9", "12.2.11", "13.4.8"], count=15)


def same_table(lab, cases, *, count, together=TOGETHER):
    port = Echo(lab).port
    direct = table(port, cases, together)
    equal(len(direct), count, "cases that ran")
    failed = {name: row for name, row in direct.items() if not {row["behavior"], row["close"]} <= PASSED}
    equal(failed, {}, "cases that the echo server fails by itself")
    proxied = table(lab.front(port), cases, together)
    different = {name: (direct[name], proxied.get(name)) for name in direct if direct[name] != proxied.get(name)}
    check(not different, "\n".join(f"{name}\n  direct:  {one}\n  proxied: {other}" for name, (one, other) in different.items()))


def table(port, cases, together):
    try:
        results = asyncio.run(kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, concurrency=together))
    except kosoku.FailureError as failure:
        results = failure.results
    return {result.case_id: {
        "behavior": result.behavior.value, "close": result.behavior_close.value, "code": result.remote_close_code,
        "reason": result.remote_close_reason, "clean": result.was_clean, "failed by the client": result.failed_by_me,
        "dropped by the client": result.dropped_by_me, "status": result.http_response.partition("\r\n")[0],
    } for result in results}


class Echo(Origin):
    """A WebSocket echo that treats each frame before it looks at the next one, so that its answers do not depend on how the
    bytes were cut on their way; servers that read ahead turn "OK" into "NON-STRICT" by chance."""

    def __init__(self, lab):
        super().__init__(lab, self.talk)

    def talk(self, peer, _):
        link, pieces = wsproto.WSConnection(wsproto.connection.ConnectionType.SERVER), []
        while content := peer.recv(1 << 18):
            link.receive_data(content)
            try:
                for event in link.events():
                    if (answer := self.answer(event, pieces)) is not None:
                        peer.sendall(link.send(answer))
                    if isinstance(event, CloseConnection):
                        return leave(peer)
            except wsproto.utilities.RemoteProtocolError as error:
                if error.event_hint:
                    peer.sendall(link.send(error.event_hint))
                return leave(peer)

    def answer(self, event, pieces):
        match event:
            case Request():
                return AcceptConnection(extensions=[PerMessageDeflate()])
            case Message(data=data, message_finished=finished):
                pieces.append(data)
                if finished:
                    whole = type(data)().join(pieces)
                    pieces.clear()
                    return type(event)(data=whole)
            case Ping() | CloseConnection():
                return event.response()


def leave(peer):
    """Closing over bytes that are still unread would reset the connection, and the close frame might be lost with it."""
    peer.settimeout(LINGER)
    peer.shutdown(socket.SHUT_WR)
    read_all(peer)
