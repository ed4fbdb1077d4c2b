//! What the proxies of the demo are configured with: files as any proxy has them, for a person to read and to change.

use std::fmt::Write;
use std::net::SocketAddr;

use super::mesh::Service;

/// The gateway's. `shop` is where it sends requests, `receiver` where its spans go.
pub fn edge(port: u16, shop: SocketAddr, receiver: SocketAddr) -> String {
    format!(
        "\
# The gateway of the demo. The first of these is for you: change it, save, and watch the traces that are kept.
version: 1
role: gateway
policy:
  sampling:
    head:
      rules:
      - action: {{probability: \"1\"}}      # \"0.1\" keeps every tenth trace; `never: {{}}` none
  destinations:
  - name: demo
    otlpHttp: {{endpoint: \"http://{receiver}\"}}
    delivery: {{age: 200ms}}

node: {{service: edge, namespace: demo}}
workers: 1
admin: {{address: \"127.0.0.1:0\"}}
status: {{address: \"127.0.0.1:0\"}}
listeners:
- name: edge
  mode: gateway
  address: \"127.0.0.1:{port}\"
  answerTrace: serverTiming              # answers tell their trace's id
  routes:
  - {{name: checkout, match: {{path: /checkout}}, upstream: shop, timeout: 5s}}
upstreams:
- {{name: shop, addresses: [\"{shop}\"]}}
telemetry: {{log: info}}
drain: {{timeout: 1s}}
"
    )
}

/// A sidecar's: where its application is, and whom that calls.
pub fn sidecar(service: &Service, app: SocketAddr, calls: &[(&str, SocketAddr)], receiver: SocketAddr) -> String {
    let Service { name, what, policy, .. } = service;
    let mut text = format!(
        "\
# The sidecar of {name}: {what}.
version: 1
role: sidecar
node: {{service: {name}, namespace: demo}}
workers: 1
admin: {{address: \"127.0.0.1:0\"}}
status: {{address: \"127.0.0.1:0\"}}
policy:
{policy}  destinations:
  - name: demo
    otlpHttp: {{endpoint: \"http://{receiver}\"}}
    delivery: {{age: 200ms}}
telemetry: {{log: info}}
drain: {{timeout: 1s}}
upstreams:
- {{name: app, addresses: [\"{app}\"]}}
"
    );
    for (callee, address) in calls {
        let _ = writeln!(text, "- {{name: {callee}, addresses: [\"{address}\"]}}");
    }
    text.push_str("listeners:\n- {name: in, mode: inbound, address: \"127.0.0.1:0\", upstream: app}\n");
    if !calls.is_empty() {
        text.push_str("- name: out\n  mode: outbound\n  address: \"127.0.0.1:0\"\n  routes:\n");
    }
    for (callee, _) in calls {
        let retry = match *callee {
            "payment" => ", retry: {attempts: 1, on: [\"503\"]}",
            _ => "",
        };
        let _ = writeln!(text, "  - {{name: {callee}, match: {{host: {callee}.demo}}, upstream: {callee}{retry}}}");
    }
    text
}
