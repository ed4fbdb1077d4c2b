//! The files of the demo: policies, as any control plane reads them, for a person to read and to change; and for each proxy
//! what is its own, in the form that any proxy has.

use std::fmt::Write;
use std::net::SocketAddr;

use super::mesh::Service;

/// The file that a person is told to change.
pub const SAMPLING: &str = "\
# Which traces are kept. This file is for you: change it, save, and watch the traces that are kept.
# A mistake is refused by line, and what was said before goes on.
apiVersion: spanmesh.io/v1alpha1
kind: SamplingPolicy
metadata: {name: demo, namespace: demo}
spec:
  targetRefs: [{kind: Namespace, name: demo}]
  defaults:
    head:
      rules:
      - name: all
        action: {probability: \"1\"}      # \"0.1\" keeps every tenth trace; `never: {}` none
";

/// For the proxies of one service.
pub const ORDERS: &str = "\
# What is particular to orders: its application knows nothing but B3.
apiVersion: spanmesh.io/v1alpha1
kind: SpanPolicy
metadata: {name: orders, namespace: demo}
spec:
  targetRefs: [{group: apps, kind: Deployment, name: orders}]
  propagation: {extract: [w3c, b3], inject: [w3c, b3]}
";

/// For all proxies. `receiver` is where spans go.
pub fn mesh(receiver: SocketAddr) -> String {
    format!(
        "\
# What holds for the whole mesh: where spans go.
apiVersion: spanmesh.io/v1alpha1
kind: MeshTracing
metadata: {{name: default}}
spec:
  destinations:
  - name: demo
    otlpHttp: {{endpoint: \"http://{receiver}\"}}
"
    )
}

/// The gateway's. `shop` is where it sends requests.
pub fn edge(port: u16, shop: SocketAddr, control_plane: SocketAddr) -> String {
    let head = head("edge", "the gateway of the demo", "gateway", control_plane);
    format!(
        "\
{head}upstreams:
- {{name: shop, service: shop.demo, addresses: [\"{shop}\"]}}
listeners:
- name: edge
  mode: gateway
  address: \"127.0.0.1:{port}\"
  answerTrace: serverTiming              # answers tell their trace's id
  routes:
  - {{name: checkout, match: {{path: /checkout}}, upstream: shop, timeout: 5s}}
"
    )
}

/// A sidecar's: where its application is, and whom that calls.
pub fn sidecar(service: &Service, app: SocketAddr, calls: &[(&str, SocketAddr)], control_plane: SocketAddr) -> String {
    let Service { name, what, .. } = service;
    let mut text = head(name, &format!("the sidecar of {name}: {what}"), "sidecar", control_plane);
    let _ = writeln!(text, "upstreams:\n- {{name: app, addresses: [\"{app}\"]}}");
    for (callee, address) in calls {
        let _ = writeln!(text, "- {{name: {callee}, service: {callee}.demo, addresses: [\"{address}\"]}}");
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

/// Who the proxy is, and who tells it the policies.
fn head(name: &str, what: &str, role: &str, control_plane: SocketAddr) -> String {
    format!(
        "\
# This is {what}. What it does with traces is pushed to it: ../{POLICIES}.
version: 1
role: {role}
node: {{service: {name}, namespace: demo, pod: {name}{POD}, serviceAccount: {name}}}
controlPlane: {{addresses: [\"http://{control_plane}\"], workload: {name}}}
workers: 1
admin: {{address: \"127.0.0.1:0\"}}
status: {{address: \"127.0.0.1:0\"}}
telemetry: {{log: info}}
drain: {{timeout: 1s}}
"
    )
}

/// The folder that the control plane reads.
pub const POLICIES: &str = "policies";
/// The folder of the proxies' own files.
pub const PROXIES: &str = "proxies";
/// As pods of a StatefulSet are called.
const POD: &str = "-0";
