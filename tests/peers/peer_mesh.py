"""A mesh of four services that are each traced otherwise, behind real sidecars. Asserted is one tree, span by span and field by
field, for each of several requests at once.

    client ─▶ edge ─▶ shop ─▶ stock ─▶ price ─▶ ledger ─▶ shop        shop: Flask, instrumented by OpenTelemetry
                        └──▶ ledger (404)                             stock: Node.js, instrumented by OpenTelemetry
                                                                      price: B3 alone, ledger: copies headers
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import sys
import urllib.request

import requests

from harness import case, check, equal, free_port, wait
from receiver import Receiver, value

HERE = pathlib.Path(__file__).parent / "mesh"
ORDERS = range(7, 15)
SERVICES = ("shop", "stock", "price", "ledger")
SERVER, CLIENT = 2, 3
UNSET, ERROR = 0, 2


class Mesh:
    def __init__(self, lab):
        self.receiver = Receiver(lab)
        self.collector = f"http://127.0.0.1:{self.receiver.http}"
        self.inbound = {name: free_port() for name in SERVICES}
        self.apps = {name: free_port() for name in SERVICES}
        self.sidecars = {name: self.sidecar(lab, name) for name in SERVICES}
        proxies = {name: f"http://127.0.0.1:{proxy.port('out')}" for name, proxy in self.sidecars.items()}
        bin = pathlib.Path(sys.executable).parent
        otel = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        modules = pathlib.Path(os.environ["SPANMESH_TARGET"]) / "peers/node/node_modules"
        started = {}
        started["shop"] = self.start(lab, "shop", proxies, bin / "opentelemetry-instrument", sys.executable, HERE / "shop.py", OTEL_SERVICE_NAME="shop", **otel)
        started["stock"] = self.start(lab, "stock", proxies, "node", "--require", "@opentelemetry/auto-instrumentations-node/register", HERE / "stock.js",
                   OTEL_SERVICE_NAME="stock", OTEL_NODE_ENABLED_INSTRUMENTATIONS="http", OTEL_NODE_RESOURCE_DETECTORS="env", NODE_PATH=modules, **otel)
        started["price"] = self.start(lab, "price", proxies, sys.executable, HERE / "price.py", more=[f"{self.collector}/v1/traces"])
        started["ledger"] = self.start(lab, "ledger", proxies, sys.executable, HERE / "ledger.py")
        for name, process in started.items():
            # All at once: interpreters take their time.
            lab.listens(name, process, self.apps[name], 30)
        self.edge = lab.proxy(
            [{"name": "edge", "mode": "gateway", "routes": [
                {"name": "orders", "match": {"pathTemplate": "/orders/{order}"}, "upstream": "shop"}]}],
            [{"name": "shop", "addresses": [f"127.0.0.1:{self.inbound['shop']}"]}],
            node={"service": "edge"}, policy=self.policy())

    def sidecar(self, lab, name):
        """Inbound before the application, outbound as the forward proxy that the application is told of."""
        return lab.proxy(
            [{"name": "in", "mode": "inbound", "port": self.inbound[name], "upstream": "app"},
             {"name": "out", "mode": "outbound", "routes": [
                 {"name": f"to-{other}", "match": {"host": f"{other}.mesh"}, "upstream": other} for other in SERVICES]}],
            [{"name": "app", "addresses": [f"127.0.0.1:{self.apps[name]}"], "protocol": "http1"},
             *({"name": other, "addresses": [f"127.0.0.1:{port}"]} for other, port in self.inbound.items())],
            role="sidecar", node={"service": name}, policy=self.policy())

    def policy(self):
        return {"propagation": {"inject": ["w3c", "b3multi"]},
                "destinations": [{"name": "collector", "otlpHttp": {"endpoint": self.collector}, "delivery": {"age": "20ms"}}]}

    def start(self, lab, name, proxies, *command, more=(), **environment):
        # What is exported goes through the sidecar too, where the SDK heeds http_proxy; no span may come of it.
        environment["http_proxy"] = proxies[name]
        return lab.spawn(name, ["env", *(f"{key}={said}" for key, said in environment.items()), *command, self.apps[name], *more])

    def spans(self):
        """Every span by its id, with its service."""
        found = {}
        for request in list(self.receiver.requests):
            for entry in request.resource_spans:
                resource = {one.key: value(one.value) for one in entry.resource.attributes}
                for scope in entry.scope_spans:
                    for span in scope.spans:
                        check(span.span_id not in found, f"{span.name} came twice")
                        found[span.span_id] = Span(resource["service.name"], scope.scope.name, span)
        return found


class Span:
    def __init__(self, service, scope, span):
        self.maker = "proxy" if scope == "spanmesh" else "sdk"
        self.service, self.trace, self.parent = service, span.trace_id.hex(), span.parent_span_id
        self.name, self.kind, self.status = span.name, span.kind, span.status.code
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.attributes = {one.key: value(one.value) for one in span.attributes}

    def __repr__(self):
        return f"{self.service} {self.maker} {self.kind} {self.name!r} {self.status} {self.attributes}"


@case("spans of Flask, Node.js, B3 and no library at all are one tree with the proxies'", needs=["node"], direct=False, seconds=120)
def one_tree(lab):
    mesh = Mesh(lab)
    front = f"http://127.0.0.1:{mesh.edge.port('edge')}"

    def ask(order):
        with urllib.request.urlopen(f"{front}/orders/{order}?token=1", timeout=30) as answer:
            return json.load(answer)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, ORDERS))
    for order, answer in zip(ORDERS, answers):
        equal((answer["missing"], answer["stock"]["item"]), (404, order), "the answer")
        price = answer["stock"]["price"]
        equal([name for name in price["said"] if not name.startswith("x-b3-")], [], "what speaks only B3 says")
        equal(price["entry"], {"rate": {"rate": 3}, "copied": ["traceparent", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid", "x-request-id"]}, "the ledger")
    size = count(tree(mesh, ORDERS[0]))
    wait(lambda: len(mesh.spans()) >= size * len(ORDERS), "all spans arrive", timeout=20)
    # Whatever else is traced, such as the sending of spans, would be there by the time that the proxies know of it.
    sent = mesh.sidecars["shop"]
    wait(lambda: sent.metric("spanmesh_proxy_requests_untraced_total") > 0, "Flask's spans went through its sidecar, untraced")
    spans = mesh.spans()
    equal(len(spans), size * len(ORDERS), "spans of all requests")
    traces = collections.defaultdict(dict)
    for id, span in spans.items():
        traces[span.trace][id] = span
    equal(len(traces), len(ORDERS), "traces")
    seen = set()
    for spans in traces.values():
        roots = [id for id, span in spans.items() if not span.parent]
        equal(len(roots), 1, f"roots of {list(spans.values())}")
        order = int(spans[roots[0]].attributes["url.path"].rpartition("/")[2])
        seen.add(order)
        visited = walk(spans, roots[0], tree(mesh, order), f"order {order}")
        equal(len(visited), len(spans), f"orphans and loops: {[span for id, span in spans.items() if id not in visited]}")
    equal(seen, set(ORDERS), "each request has a trace of its own")


class Expected:
    """A span, and what stands below it in order of time."""

    def __init__(self, service, maker, kind, name, attributes, *below, failed=False):
        self.service, self.maker, self.kind, self.name, self.attributes, self.below = service, maker, kind, name, attributes, below
        self.status = ERROR if failed else UNSET


def count(expected):
    return 1 + sum(map(count, expected.below))


def walk(spans, id, expected, place):
    """Compares a span and all below it; gives all that it met."""
    span = spans[id]
    place = f"{place} › {span.service} {span.maker} {span.kind}"
    for field in ("service", "maker", "kind", "name", "status"):
        equal(getattr(span, field), getattr(expected, field), f"{place}: {field}")
    if span.maker == "proxy":
        timing = {key for key in span.attributes if key.startswith("spanmesh.time.")}
        check({"spanmesh.time.queue", "spanmesh.time.first_byte"} <= timing <= TIMES, f"{place}: {timing}")
        changing = timing | {"spanmesh.request_id"} | ({"network.peer.port"} if span.kind == SERVER else set())
        check(all(span.attributes.get(key) is not None for key in changing), f"{place}: {span.attributes}")
        equal({key: said for key, said in span.attributes.items() if key not in changing}, expected.attributes, f"{place}: attributes")
    else:
        equal({key: span.attributes.get(key) for key in expected.attributes}, expected.attributes, f"{place}: attributes")
    check(span.start <= span.end, f"{place}: it ends before it starts")
    below = sorted((each for each in spans if spans[each].parent == id), key=lambda each: spans[each].start)
    equal([spans[each].service for each in below], [each.service for each in expected.below], f"{place}: what is below")
    met = {id}
    for each, its in zip(below, expected.below):
        child = spans[each]
        check(span.start - EARLY <= child.start <= span.end, f"{place}: {child} starts outside of it")
        check(child.end <= span.end + LATE, f"{place}: {child} ends {(child.end - span.end) // 1000} µs after it")
        met |= walk(spans, each, its, place)
    return met


def tree(mesh, order):
    """What one request has to leave behind."""
    rates = inbound("shop", "GET", "/rates", URLLIB, Expected(
        "shop", "sdk", SERVER, "GET /rates", {"http.request.method": "GET", "http.route": "/rates", "http.response.status_code": 200}))
    entries = inbound("ledger", "GET", "/entries", URLLIB, outbound(mesh, "ledger", "shop", "GET", "/rates", rates))
    price = inbound("price", "GET", f"/prices/{order}", None, Expected("price", "sdk", SERVER, "price", {}, Expected(
        "price", "sdk", CLIENT, "ledger", {}, outbound(mesh, "price", "ledger", "GET", "/entries", entries, source="b3multi"))))
    item = f"/items/{order}?sig=REDACTED&kept=1"
    stock = inbound("stock", "GET", item, REQUESTS, Expected(
        "stock", "sdk", SERVER, "GET", {"http.request.method": "GET", "url.path": f"/items/{order}", "http.response.status_code": 200},
        Expected("stock", "sdk", CLIENT, "GET", {"http.request.method": "GET", "http.response.status_code": 200},
                 outbound(mesh, "stock", "price", "GET", f"/prices/{order}", price))))
    missing = inbound("ledger", "POST", "/missing", REQUESTS, status=404)
    flask = Expected(
        "shop", "sdk", SERVER, "GET /orders/<int:order>", {"http.request.method": "GET", "url.path": f"/orders/{order}", "http.response.status_code": 200},
        Expected("shop", "sdk", CLIENT, "GET", {"http.request.method": "GET", "url.full": f"http://stock.mesh{item}", "http.response.status_code": 200},
                 outbound(mesh, "shop", "stock", "GET", item, stock)),
        Expected("shop", "sdk", CLIENT, "POST", {"http.request.method": "POST", "http.response.status_code": 404, "error.type": "404"},
                 outbound(mesh, "shop", "ledger", "POST", "/missing", missing, status=404), failed=True))
    asked, port = f"/orders/{order}?token=1", mesh.edge.port("edge")
    begins = {"spanmesh.side": "gateway", "spanmesh.sampling.decision": "head", "spanmesh.sampling.policy": "default",
              "server.address": "127.0.0.1", "server.port": port, "spanmesh.route.source": "configured"}
    name, template = "GET /orders/{order}", "/orders/{order}"
    shop = inbound("shop", "GET", asked, URLLIB, flask, host=("127.0.0.1", port))
    called = common("GET", 200) | begins | {"url.full": f"http://127.0.0.1:{port}{asked}", "url.template": template,
                                            "network.peer.port": mesh.inbound["shop"]}
    got = common("GET", 200) | begins | received(asked, URLLIB) | {"http.route": template}
    return Expected("edge", "proxy", SERVER, name, got, Expected("edge", "proxy", CLIENT, name, called, shop))


def inbound(service, method, asked, agent, *below, status=200, host=None):
    """The span of the callee's sidecar."""
    address, port = host or (f"{service}.mesh", 80)
    attributes = common(method, status) | received(asked, agent) | learned(asked, status) | {
        "server.address": address, "server.port": port, "spanmesh.side": "server",
        "spanmesh.sampling.decision": "context", "spanmesh.context.source": "w3c"}
    return Expected(service, "proxy", SERVER, named(method, attributes), attributes, *below)


def outbound(mesh, service, to, method, asked, *below, status=200, source="w3c"):
    """The span of the caller's sidecar."""
    attributes = common(method, status) | learned(asked, status) | {
        "url.full": f"http://{to}.mesh{asked}", "server.address": f"{to}.mesh", "server.port": 80, "network.peer.port": mesh.inbound[to],
        "spanmesh.side": "client", "spanmesh.sampling.decision": "context", "spanmesh.context.source": source}
    if status >= 400:
        attributes["error.type"] = str(status)
    return Expected(service, "proxy", CLIENT, named(method, attributes), attributes, *below, failed=status >= 400)


def common(method, status):
    return {"http.request.method": method, "http.response.status_code": status, "network.protocol.version": "1.1",
            "network.peer.address": "127.0.0.1", "spanmesh.response.flag": "ok"}


def received(asked, agent):
    path, _, query = asked.partition("?")
    said = {"url.path": path, "url.query": query, "url.scheme": "http", "client.address": "127.0.0.1", "user_agent.original": agent}
    return {key: text for key, text in said.items() if text}


def learned(asked, status):
    """What was refused teaches nothing; numbers are one segment."""
    path = "/".join("{id}" if segment.isdigit() else segment for segment in asked.partition("?")[0].split("/"))
    return {"url.template": path, "spanmesh.route.source": "learned"} if status < 400 else {}


def named(method, attributes):
    return " ".join(filter(None, (method, attributes.get("url.template"))))


TIMES = {f"spanmesh.time.{name}" for name in ("queue", "pool", "connect", "first_byte")}
URLLIB = f"Python-urllib/{sys.version_info.major}.{sys.version_info.minor}"
REQUESTS = f"python-requests/{requests.__version__}"
# Nanoseconds: clocks of different programs, and how late a program may hear that what it called has ended, or end what it
# has answered.
EARLY, LATE = 5_000_000, 1_000_000_000
