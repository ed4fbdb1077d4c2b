"""A gRPC server of grpcio that the cases share; messages are plain bytes, so that no generated code is needed."""

import concurrent.futures
import threading
import time

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from origins import pattern

METHOD = "/spanmesh.test.Echo/"
SIZES = [("grpc.max_receive_message_length", 20 << 20), ("grpc.max_send_message_length", 20 << 20)]


class Server:
    """An echo service in all four shapes; the first word of a message says what else to do."""

    def __init__(self, lab, *options):
        self.seen, self.cancelled = [], threading.Event()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(48), options=[*SIZES, ("grpc.so_reuseport", 0), *options])
        shapes = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("spanmesh.test.Echo", shapes)])
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        lab.stack.callback(lambda: self.server.stop(0).wait(5))

    def unary(self, message, context):
        self.seen.append((dict(context.invocation_metadata()), context.time_remaining(), list(context.invocation_metadata())))
        word = message.split(b" ")[0]
        if word == b"abort":
            context.set_trailing_metadata([("x-why", "because"), ("x-raw-bin", bytes(range(256)))])
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "ungültig: 100 % ☃\nline")
        if word == b"sleep":
            context.add_callback(self.cancelled.set)
            for _ in range(100):
                time.sleep(0.05)
                if not context.is_active():
                    return b""
        context.send_initial_metadata([("x-early", "1"), ("x-early-bin", b"\x00\xff")])
        context.set_trailing_metadata([("x-late", "2"), ("x-late-bin", bytes(range(256)))])
        return message

    def down(self, message, context):
        context.add_callback(self.cancelled.set)
        word, _, count = message.partition(b" ")
        if word == b"endless":
            while context.is_active():
                yield b"tick"
                time.sleep(0.05)
            return
        for number in range(int(count)):
            yield b"%d" % number if word == b"count" else pattern(64 << 10)
        if word == b"count":
            context.set_trailing_metadata([("x-late", "after messages")])
            if int(count) == 13:
                context.abort(grpc.StatusCode.DATA_LOSS, "after messages")

    def up(self, messages, context):
        return b"%d" % sum(len(message) for message in messages)

    def both(self, messages, context):
        for message in messages:
            yield message.upper()
