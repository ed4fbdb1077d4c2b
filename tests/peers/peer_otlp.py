"""Receivers of spans: messages decoded with Python's opentelemetry-proto, sent straight, through other collectors, and through
Envoy as a TLS proxy. What arrives is compared field by field with the file that the proxy writes of the same spans."""

import json
import os
import pathlib
import sys
import urllib.error
import urllib.request

from harness import case, check, equal, free_port, wait
from origins import Answer, Http
from receiver import Receiver, value
from servers import certificates

REQUESTS = 30


def arrived(receiver):
    """Every span by its id, in plain words, and the resources."""
    spans, resources = {}, []
    for request in list(receiver.requests):
        for entry in request.resource_spans:
            resources.append({one.key: value(one.value) for one in entry.resource.attributes})
            for scope in entry.scope_spans:
                check(scope.scope.name == "spanmesh", scope.scope)
                for span in scope.spans:
                    spans[span.span_id.hex()] = {
                        "trace": span.trace_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "flags": span.flags,
                        "time": (span.start_time_unix_nano, span.end_time_unix_nano),
                        "attributes": {one.key: value(one.value) for one in span.attributes},
                        "links": [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                        "status": span.status.code,
                    }
    return spans, resources


def plain(written):
    (kind, content), = written.items()
    return int(content) if kind == "intValue" else content


def in_file(path):
    """The same of the proxy's own file."""
    spans, resources = {}, []
    for line in path.read_text().splitlines():
        for entry in json.loads(line)["resourceSpans"]:
            resources.append({one["key"]: plain(one["value"]) for one in entry["resource"]["attributes"]})
            for span in (span for scope in entry["scopeSpans"] for span in scope["spans"]):
                spans[span["spanId"]] = {
                    "trace": span["traceId"],
                    "parent": span.get("parentSpanId", ""),
                    "name": span["name"],
                    "kind": span["kind"],
                    "flags": span["flags"],
                    "time": (int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])),
                    "attributes": {one["key"]: plain(one["value"]) for one in span["attributes"]},
                    "links": [(link["traceId"], link["spanId"]) for link in span.get("links", [])],
                    "status": span.get("status", {}).get("code", 0),
                }
    return spans, resources


def compare(lab, receiver, destination):
    """Makes spans of several kinds and holds what the receiver got against the file."""
    origin = Http(lab, "h1", answer)
    path = lab.path("spans.jsonl")
    proxy = lab.proxy(
        [{"name": "in", "mode": "gateway", "upstream": "app"}],
        [{"name": "app", "addresses": [f"127.0.0.1:{origin.port}"], "protocol": "http1"}],
        node={"service": "cart", "namespace": "shop", "pod": "cart-1", "container": "app", "nodeName": "worker"},
        policy={"destinations": [{"name": "file", "file": {"path": str(path)}},
                                 {"name": "there", "delivery": {"age": "20ms", "spans": 16}, **destination}]},
    )
    for number in range(REQUESTS):
        request = urllib.request.Request(f"http://127.0.0.1:{proxy.port('in')}/a/{number}?q=%C3%BC", headers={
            "user-agent": "Gr\u00fc\u00dfe".encode("utf-8").decode("latin-1"), "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01"})
        try:
            urllib.request.urlopen(request, timeout=5).read()
        except urllib.error.HTTPError as error:
            check(error.code == 500 and error.read() == b"hello", error)
    wait(lambda: len(arrived(receiver)[0]) == 2 * REQUESTS, "all spans arrive", timeout=30)
    wait(lambda: len(in_file(path)[0]) == 2 * REQUESTS, "all spans are in the file")
    (seen, told), (expected, written) = arrived(receiver), in_file(path)
    equal(sorted(seen), sorted(expected), "the spans' ids")
    for id, span in expected.items():
        equal(seen[id], span, f"span {id}")
    for resource in told:
        equal(resource, written[0], "the resource")
    wait(lambda: proxy.metric("spanmesh_proxy_spans_exported_total") == 4 * REQUESTS, "all are counted as exported")
    equal(proxy.metric("spanmesh_proxy_spans_dropped_total"), 0, "dropped")


def answer(request):
    return Answer(500 if request.target.startswith("/a/7") else 200, [("content-length", "5")], [b"hello"])


def target(way, address, scheme="http", **fields):
    kind, _, more = way.partition(" ")
    fields.update({"gzip": {"compression": "gzip"}, "json": {"encoding": "json"}}.get(more, {}))
    return {"otlpGrpc" if kind == "grpc" else "otlpHttp": {"endpoint": f"{scheme}://{address}", **fields}}


WAYS = ("http", "http gzip", "grpc", "grpc gzip")


@case("opentelemetry-proto reads what the file says", direct=False, down=WAYS)
def decoded(lab, down):
    receiver = Receiver(lab)
    compare(lab, receiver, target(down, f"127.0.0.1:{receiver.grpc if 'grpc' in down else receiver.http}"))


@case("rotel takes the spans and passes them on unchanged", direct=False, down=(*WAYS, "http json"))
def rotel(lab, down):
    import rotel as package

    program = pathlib.Path(package.__file__).parent / "rotel-agent"
    program.chmod(0o755)
    receiver, ports = Receiver(lab), {"grpc": free_port(), "http": free_port()}
    lab.spawn("rotel", [program, "start", "--otlp-grpc-endpoint", f"127.0.0.1:{ports['grpc']}", "--otlp-http-endpoint", f"127.0.0.1:{ports['http']}",
                        "--exporter", "otlp", "--otlp-exporter-endpoint", f"http://127.0.0.1:{receiver.grpc}"], ports=ports.values())
    compare(lab, receiver, target(down, f"127.0.0.1:{ports[down.split()[0]]}"))


@case("the OpenTelemetry Collector takes the spans and passes them on unchanged", needs=["otelcol"], direct=False, full=True, down=(*WAYS, "http json"))
def otelcol(lab, down):
    receiver, ports = Receiver(lab), {"grpc": free_port(), "http": free_port()}
    config = lab.write("otelcol.yaml", json.dumps({
        "receivers": {"otlp": {"protocols": {name: {"endpoint": f"127.0.0.1:{port}"} for name, port in ports.items()}}},
        "exporters": {"otlp": {"endpoint": f"127.0.0.1:{receiver.grpc}", "tls": {"insecure": True}}},
        "service": {"telemetry": {"metrics": {"level": "none"}}, "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp"]}}},
    }))
    lab.spawn("otelcol", ["otelcol", "--config", config], ports=ports.values())
    compare(lab, receiver, target(down, f"127.0.0.1:{ports[down.split()[0]]}"))


@case("Envoy ends the TLS between the proxy and the receiver", direct=False, down=WAYS)
def envoy(lab, down):
    receiver, port, folder = Receiver(lab), free_port(), certificates()
    is_grpc = "grpc" in down
    back = receiver.grpc if is_grpc else receiver.http
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    }
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{"certificate_chain": {"filename": str(folder / "shop.example.crt")},
                                  "private_key": {"filename": str(folder / "shop.example.key")}}],
        },
    }
    cluster = {
        "name": "back", "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": "back", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(back)}}]}]},
    }
    if is_grpc:
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    config = lab.write("envoy.json", json.dumps({"static_resources": {
        "listeners": [{"name": "in", "address": address(port), "filter_chains": [{
            "filters": [{"name": "http", "typed_config": manager}], "transport_socket": {"name": "tls", "typed_config": tls}}]}],
        "clusters": [cluster],
    }}))
    program = os.path.join(os.path.dirname(sys.executable), "envoy")
    lab.spawn("envoy", [program, "-c", config, "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"], ports=[port])
    compare(lab, receiver, target(down, f"127.0.0.1:{port}", "https", tls={"rootFile": str(folder / "ca.crt"), "serverName": "shop.example"}))


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
