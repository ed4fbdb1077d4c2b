"""An origin that answers every request with the head that it got; keep-alive, one after another. Run as a program: a port."""

import asyncio
import sys


class Heads(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.waiting = transport, b""

    def data_received(self, data):
        *heads, self.waiting = (self.waiting + data).split(b"\r\n\r\n")
        self.transport.write(b"".join(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(head), head) for head in heads))


async def main():
    server = await asyncio.get_running_loop().create_server(Heads, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
