//! The promises of the configuration as a whole: the example parses, every error names its line and field, defaults hold, and what is written
//! reads back.

mod general;
mod listeners;
mod policy;
mod routes;
mod upstreams;
mod variables;

use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn read(text: &str) -> Config {
    parse(text, "proxy.yaml", std::iter::empty()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    parse(text, "proxy.yaml", variables).map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

fn problems(text: &str) -> Vec<String> {
    with(text, &[]).expect_err("should be refused")
}

/// A right file around the lines of one listener, which begin in line 8.
fn listener(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "version: 1\nrole: standalone\nupstreams:\n- {{name: app, addresses: [\"127.0.0.1:80\"]}}\nlisteners:\n- name: in\n  address: \"127.0.0.1:0\"\n{lines}"
    )
}

/// A right file around the lines of one route, which begin in line 11.
fn route(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    listener(&format!("mode: inbound\nroutes:\n- name: r\n{lines}"))
}

const SMALL: &str = "version: 1\nrole: sidecar\n";

const EXAMPLE: &str = r#"
version: 1
role: sidecar
node: {service: cart, namespace: shop, serviceVersion: "1.4", pod: cart-7d9, serviceAccount: cart, cluster: c1}
workers: 1
admin:  {address: "127.0.0.1:14000"}
status: {address: "0.0.0.0:14020"}
listeners:
- name: in
  mode: inbound
  address: "127.0.0.1:14006"
  transparent: false
  protocol: detect
  trust: Continue
  upstream: app
- name: out
  mode: outbound
  address: "127.0.0.1:14001"
  transparent: true
- name: edge
  mode: gateway
  address: "0.0.0.0:8443"
  tls: {certificates: [{cert: tls.crt, key: tls.key}]}
  trust: Restart
  routes:
  - {name: cart, match: {host: shop.example, pathPrefix: /cart}, upstream: cart, timeout: 5s, retry: {attempts: 2, on: [connectFailure, reset, "503"]}}
upstreams:
- {name: app,  addresses: ["127.0.0.1:8080"], protocol: auto}
- {name: cart, addresses: ["10.0.0.1:8080", "10.0.0.2:8080"], tls: {rootFile: ca.crt, serverName: cart.shop}}
limits: {}
drain: {timeout: 30s}
telemetry: {log: info, accessLog: {format: json, to: stdout}, metrics: {}}
policy:
  propagation: {extract: [w3c], inject: [w3c], clear: [], baggage: true}
  sampling: {}
  destinations:
  - {name: collector, file: {path: spans.jsonl}}
  - {name: out, stdout: {}}
  - {name: grpc, otlpGrpc: {endpoint: "http://127.0.0.1:4317"}}
  - name: http
    otlpHttp: {endpoint: "https://a.example/tenant", compression: gzip, tls: {rootFile: ca.crt}, headers: [{name: authorization, file: token}]}
    delivery: {spans: 100, queue: 1Mi}
identity: {}
"#;

#[test]
fn the_example_parses() {
    let config = read(EXAMPLE);
    assert_eq!(config.role, Role::Sidecar);
    assert_eq!(config.node.service_version, "1.4");
    assert_eq!(config.workers, Some(1));
    assert_eq!(
        config.telemetry.access_log,
        AccessLog { format: LogFormat::Json, to: Some(LogTarget::Stdout), requests: None }
    );
    let [inbound, outbound, edge] = &config.listeners[..] else { panic!("three listeners") };
    assert_eq!((inbound.mode, inbound.upstream.as_deref()), (Mode::Inbound, Some("app")));
    assert_eq!((outbound.mode, outbound.transparent), (Mode::Outbound, true));
    let tls = edge.tls.as_ref().unwrap();
    assert_eq!(tls.certificates, [Certificate { cert: "tls.crt".into(), key: "tls.key".into() }]);
    let route = &edge.routes[0];
    assert_eq!(route.matches.host.as_deref(), Some("shop.example"));
    assert_eq!(route.matches.path_prefix.as_deref(), Some("/cart"));
    assert_eq!(route.timeout, Some(Duration::from_secs(5)));
    let retry = route.retry.as_ref().unwrap();
    assert_eq!(retry.on, [RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::Status(503)]);
    assert_eq!((retry.backoff, retry.body_limit), (Duration::from_millis(25), 65536));
    assert_eq!(config.upstreams[1].addresses[1], Address { host: "10.0.0.2".into(), port: 8080 });
    assert_eq!(config.upstreams[1].tls.as_ref().unwrap().root_file, Some(PathBuf::from("ca.crt")));
    assert_eq!(config.policy.destinations[0].to, Target::File("spans.jsonl".into()));
    assert_eq!(config.policy.destinations[1].to, Target::Stdout);
    assert!(config.warnings.is_empty());
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = read(SMALL);
    assert_eq!(config.workers, None);
    assert_eq!(config.admin.address, "127.0.0.1:14000".parse().unwrap());
    assert_eq!(config.status.address, "0.0.0.0:14020".parse().unwrap());
    assert_eq!(config.limits, Limits::default());
    assert_eq!((config.limits.header_bytes, config.limits.header_timeout), (65536, Duration::from_secs(10)));
    assert_eq!(config.handover.socket, None);
    assert_eq!(config.policy.propagation, Propagation::default());
    let config = read(&listener("mode: gateway\nupstream: app"));
    let gateway = &config.listeners[0];
    assert_eq!(gateway.trust, Trust::Restart);
    assert_eq!(gateway.detect_timeout, Duration::from_secs(1));
    assert_eq!(gateway.opaque_ports, [25, 587, 3306, 4444, 5432, 6379, 9300, 11211]);
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.connect_timeout, upstream.idle_timeout), (Duration::from_secs(5), Duration::from_secs(4)));
    assert_eq!(read(&listener("mode: inbound\nupstream: app")).listeners[0].trust, Trust::Continue);
}

#[test]
fn a_port_declared_http_is_not_opaque_by_default() {
    let config = read(&listener("mode: inbound\nupstream: app\nhttpPorts: [9300]"));
    assert_eq!(config.listeners[0].opaque_ports, [25, 587, 3306, 4444, 5432, 6379, 11211]);
}

#[test]
fn what_is_written_reads_back() {
    let every_field = listener(
        "mode: gateway\nprotocol: http\nhttpPorts: [9300]\ntrustedHops: 2\nroutes:\n- name: r\n  match: {host: \"*.shop.example\", pathTemplate: \"/a/{id}\", method: GET, headers: {X-Tenant: \"5\"}}\n  upstream: app\n  timeout: 1500ms\n  idleTimeout: 1s\n  retry: {attempts: 1, on: [timeout, 429], attemptTimeout: 1s, bodyLimit: 1000}\n- {name: rest, upstream: app}",
    );
    for text in [SMALL, EXAMPLE, &every_field] {
        let config = read(text);
        assert_eq!(read(&config.to_yaml()), config, "{}", config.to_yaml());
    }
}

/// Each text with the beginning of each of its problems, `LINE:COLUMN: field: `, and a part of what is said.
fn told(cases: Vec<(String, &[(&str, &str)])>) {
    for (text, expected) in cases {
        let found = problems(&text);
        assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
        for (problem, (begins, says)) in found.iter().zip(expected) {
            let begins = format!("proxy.yaml:{begins}");
            assert!(
                problem.starts_with(&begins) && problem.contains(says),
                "{text}\nexpected {begins}…{says}\n{found:#?}"
            );
            assert!(problem.contains("; "), "says what would be right: {problem}");
        }
    }
}

#[test]
fn problems_of_several_sections_are_told_together_in_the_order_of_the_file() {
    let text = "version: 1\nrole: standalone\nupstreams: [{name: u, addresses: []}]\nlisteners:\n- {name: a, mode: inbound, address: \"127.0.0.1:1\", upstream: x}\n- {name: a, mode: outbound, address: \"127.0.0.1:1\", httpsRedirect: true}\n";
    let found = problems(text);
    let fields: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").nth(1)).collect();
    assert_eq!(
        fields,
        [
            "upstreams[0].addresses",
            "listeners[0].upstream",
            "listeners[1].name",
            "listeners[1].address",
            "listeners[1].httpsRedirect"
        ]
    );
}

#[test]
fn a_file_full_of_errors_tells_the_first_and_counts_the_rest() {
    let text = format!("{SMALL}upstreams:\n{}", "- {}\n".repeat(40));
    let found = problems(&text);
    assert_eq!(found.len(), 51);
    assert!(found[50].starts_with("proxy.yaml: has 30 more problems; "), "{}", found[50]);
}

#[test]
fn an_open_admin_is_warned_about() {
    assert_eq!(read(&format!("{SMALL}admin: {{address: \"0.0.0.0:1\"}}\n")).warnings.len(), 1);
}

#[test]
fn a_file_is_loaded_and_checked() {
    let folder = std::env::temp_dir().join(format!("spanmesh-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("proxy.yaml");
    let told = |text: &[u8]| {
        std::fs::write(&file, text).unwrap();
        load(&file, std::iter::empty()).map_err(|problems| problems[0].to_string())
    };
    assert!(told(EXAMPLE.as_bytes()).is_ok());
    let name = file.display();
    assert_eq!(told(&vec![b'#'; MAX_FILE + 1]), Err(format!("{name}: is larger than 1 MiB; write a smaller file")));
    assert_eq!(told(b"a: 1\nb: \xff"), Err(format!("{name}: is not UTF-8 in line 2; save it as UTF-8")));
    assert_eq!(
        told(b"version: 1\nrole: x"),
        Err(format!("{name}:2:7: role: `x` is not known here; the words here are `sidecar`, `gateway`, `standalone`"))
    );
    assert!(
        load(&folder.join("gone"), std::iter::empty()).unwrap_err()[0]
            .to_string()
            .contains("cannot be read: No such file")
    );
    assert_eq!(read(EXAMPLE).summary(), "3 listeners, 1 route, 2 upstreams");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn arbitrary_bytes_never_panic() {
    fuzz_config(EXAMPLE.as_bytes());
    fuzz_config(b"\xff\0SPANMESH_LIMITS=[");
    fuzz_config(b"version: 1\0SPANMESH_\n=x");
    fuzz_config(b"? {\"a\\nb\": 1}\n: x");
    // Each position of a right file is cut once and changed once.
    let text = EXAMPLE.as_bytes();
    let bytes = [0, b'{', b'*', b'&', b'\'', b'-', b'\n', b' ', b'9', 0xe2, b'"'];
    for (at, byte) in (0..text.len()).zip(bytes.into_iter().cycle()) {
        fuzz_config(text.get(..at).unwrap());
        let mut changed = text.to_vec();
        changed[at] = byte;
        fuzz_config(&changed);
    }
}
