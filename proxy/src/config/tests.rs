//! The promises of the configuration as a whole: the example parses, every error names its line and field, defaults hold, and what is written
//! reads back.

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
fn a_sampling_policy_is_read_whole() {
    let text = format!(
        "{SMALL}policy:
  sampling:
    parent: Ignore
    guard: off
    head:
      rules:
      - name: health
        match:
          method: GET
          path: {{type: Exact, value: /x}}
          host: '*.shop.example'
          route: pay
          headers: [{{name: X-Tier, value: gold}}, {{name: x-there}}]
          grpc: {{service: shop.Cart, method: Get}}
          source: {{service: a, namespace: b}}
          destination: {{namespace: b}}
          baggage: [{{name: k, value: v}}]
        action: {{never: {{}}}}
      - {{match: {{path: {{type: Template, value: '/a/{{id}}'}}}}, action: {{probability: '0.05'}}}}
      - {{match: {{path: {{value: /a}}}}, action: {{rateLimit: {{tracesPerSecond: 5, burst: 10, perProxy: true}}}}}}
      - {{action: {{adaptive: {{spansPerSecond: 100, minTracesPerMinute: 1, minProbability: '0.00001'}}}}}}
      boost: [{{name: debug, match: {{method: GET}}, action: {{probability: '0.5'}}}}]
    keep:
    - {{name: errors, on: {{errors: {{}}}}, fraction: '0.1', limit: {{tracesPerSecond: 10, burst: 100}}}}
    - {{on: {{httpStatus: ['500-599', '429', 418]}}}}
    - {{on: {{grpcStatus: Default}}}}
    - {{on: {{responseFlags: [upstream_reset]}}}}
    - {{on: {{latency: {{threshold: 500ms}}}}}}
    - {{on: {{retries: {{min: 2}}}}}}
upstreams: [{{name: app, service: cart.shop, addresses: ['127.0.0.1:1']}}]
"
    );
    let config = read(&text);
    let sampling = &config.policy.sampling;
    assert_eq!((sampling.guard, sampling.parent), (Guard(None), ParentDecision::Ignore));
    let [health, template, limited, rest] = &sampling.head.rules[..] else { panic!("four rules") };
    assert_eq!((health.name.as_deref(), health.match_.headers[0].name.as_str()), (Some("health"), "x-tier"));
    assert_eq!(template.action, SamplingAction::Probability(0.05));
    let limit = RateLimit { traces_per_second: 5.0, burst: 10, per_proxy: true };
    assert_eq!(limited.action, SamplingAction::RateLimit(limit));
    assert!(matches!(rest.action, SamplingAction::Adaptive(_)) && rest.match_.is_empty());
    assert_eq!(sampling.head.boost[0].action, BoostAction::Probability(0.5));
    let on: Vec<&KeepOn> = sampling.keep.iter().map(|keep| &keep.on).collect();
    let range = |first, last| StatusRange { first, last };
    let ranges = KeepOn::HttpStatus(vec![range(500, 599), range(429, 429), range(418, 418)]);
    let flags = KeepOn::ResponseFlags(vec![crate::error::Flag::UpstreamReset]);
    let latency = KeepOn::Latency(Duration::from_millis(500));
    assert_eq!(on, [&KeepOn::Errors, &ranges, &KeepOn::GrpcStatus, &flags, &latency, &KeepOn::Retries(2)]);
    assert_eq!(config.upstreams[0].service.as_deref(), Some("cart.shop"));
    let again = parse(&config.to_yaml(), "again.yaml", std::iter::empty());
    assert_eq!(again.map(|again| again.policy), Ok(config.policy));
    assert_eq!(read(SMALL).policy.sampling.guard, Guard(Some(500.0)));
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
#[test]
fn every_error_names_line_and_field_and_what_would_be_right() {
    let cases: Vec<(String, &[(&str, &str)])> = vec![
        // The file as a whole.
        (
            "".into(),
            &[
                ("1:1: version: ", "is missing; add a number"),
                ("1:1: role: ", "is missing; add `sidecar` or `gateway` or `standalone`"),
            ],
        ),
        ("- 1\n".into(), &[("1:1: ", "is a list; write a section")]),
        ("version: 1\nrole: [\n".into(), &[("3:1: ", "is not valid YAML")]),
        ("version: 1\nrole: sidecar\nrole: gateway\n".into(), &[("3:1: role: ", "second time; keep one")]),
        ("version: 2\nrole: sidecar\n".into(), &[("1:10: version: ", "`2` is out of bounds; write `1`")]),
        // Names.
        (
            "version: 1\nrole: sidcar\n".into(),
            &[("2:7: role: ", "did you mean `sidecar`? the words here are `sidecar`, `gateway`, `standalone`")],
        ),
        (
            format!("{SMALL}nodes: {{}}\n"),
            &[("3:1: nodes: ", "is not a field; did you mean `node`? the fields here are `version`, `role`")],
        ),
        (format!("{SMALL}admin:\n  adress: x\n"), &[("4:3: admin.adress: ", "did you mean `address`?")]),
        (
            format!("{SMALL}zzz: 1\nyyy: 2\n"),
            &[("3:1: zzz: ", "is not a field; the fields here are"), ("4:1: yyy: ", "is not a field")],
        ),
        // Scalars.
        (format!("{SMALL}limits:\n"), &[("3:8: limits: ", "is empty; write `{}`")]),
        (format!("{SMALL}limits: 5\n"), &[("3:9: limits: ", "is `5`; write a section")]),
        (
            format!("{SMALL}limits: {{streams: many}}\n"),
            &[("3:19: limits.streams: ", "is `many`; write a whole number")],
        ),
        (format!("{SMALL}limits: {{streams: -1}}\n"), &[("3:19: limits.streams: ", "is `-1`; write a whole number")]),
        (
            format!("{SMALL}limits: {{headerCount: 7}}\n"),
            &[("3:23: limits.headerCount: ", "`7` is out of bounds; write `8` to `1024`")],
        ),
        (format!("{SMALL}limits: {{memoryPercent: 300}}\n"), &[("3:25: limits.memoryPercent: ", "is `300`")]),
        (
            format!("{SMALL}limits: {{headerBytes: 64KB}}\n"),
            &[("3:23: limits.headerBytes: ", "`64KB` has an unknown unit; write bytes: `1024`, `64Ki`")],
        ),
        (format!("{SMALL}limits: {{headerBytes: 2Mi}}\n"), &[("3:23: limits.headerBytes: ", "write `1Ki` to `1Mi`")]),
        (
            format!("{SMALL}limits: {{headerTimeout: 10}}\n"),
            &[("3:25: limits.headerTimeout: ", "`10` has no unit; write a whole number and its unit: `500ms`")],
        ),
        (
            format!("{SMALL}limits: {{headerTimeout: 2h}}\n"),
            &[("3:25: limits.headerTimeout: ", "`2h` is out of bounds; write `1ms` to `1h`")],
        ),
        (format!("{SMALL}workers: 0\n"), &[("3:10: workers: ", "write `1` to `256`")]),
        (format!("{SMALL}workers: 257\n"), &[("3:10: workers: ", "write `1` to `256`")]),
        (
            format!("{SMALL}node: {{serviceVersion: 1.10}}\n"),
            &[("3:24: node.serviceVersion: ", "is `1.1` without quotes, which is not text; write it in quotes")],
        ),
        (format!("{SMALL}node: {{service: \"a\\nb\"}}\n"), &[("3:17: node.service: ", "control character")]),
        (
            format!("{SMALL}admin: {{address: \"127.0.0.1\"}}\n"),
            &[("3:18: admin.address: ", "`127.0.0.1` has no port; write an IP address and a port")],
        ),
        (
            format!("{SMALL}admin: {{address: \"localhost:1\"}}\n"),
            &[("3:18: admin.address: ", "has a name where an IP address is needed")],
        ),
        (
            format!("{SMALL}telemetry: {{log: loud}}\n"),
            &[("3:18: telemetry.log: ", "`loud` is not a log filter; write `off`")],
        ),
        (
            format!("{SMALL}telemetry: {{accessLog: {{to: sdtout}}}}\n"),
            &[("3:29: telemetry.accessLog.to: ", "write `none`, `stdout`")],
        ),
        (
            format!("{SMALL}telemetry: {{metrics: {{port: 1}}}}\n"),
            &[("3:23: telemetry.metrics.port: ", "is not a field; there are no fields here")],
        ),
        (format!("{SMALL}handover: {{socket: \"\"}}\n"), &[("3:20: handover.socket: ", "is empty; write the path")]),
        // What this version does not have.
        (format!("{SMALL}controlPlane: {{}}\n"), &[("3:1: controlPlane: ", "is not in this version; leave it out")]),
        (
            format!("{SMALL}policy: {{}}\ncontrolPlane: {{addresses: []}}\n"),
            &[
                ("4:1: controlPlane: ", "is not in this version"),
                ("4:1: controlPlane: ", "stands beside `policy`; keep one of the two"),
            ],
        ),
        (format!("{SMALL}identity: {{x: 1}}\n"), &[("3:1: identity: ", "is not in this version; write `{}`")]),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{}}}}]}}}}}}\n"),
            &[("3:45: policy.sampling.head.rules[0].action: ", "says nothing; write `always: {}`, `never: {}`")],
        ),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{rateLimit: {{}}}}}}]}}}}}}\n"),
            &[("3:57: policy.sampling.head.rules[0].action.rateLimit.tracesPerSecond: ", "is missing; add a rate")],
        ),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{probability: 0}}}}]}}}}}}\n"),
            &[("3:59: policy.sampling.head.rules[0].action.probability: ", "`0` is nothing; write a decimal above 0")],
        ),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{always: {{}}, never: {{}}}}}}]}}}}}}\n"),
            &[("3:45: policy.sampling.head.rules[0].action: ", "says several things; keep one")],
        ),
        (
            format!(
                "{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{always: {{}}}}}}, {{action: {{never: {{}}}}}}]}}}}}}\n"
            ),
            &[("3:60: policy.sampling.head.rules[1]: ", "is never asked")],
        ),
        (
            format!(
                "{SMALL}policy:\n  sampling:\n    guard: 0\n    keep:\n    - {{on: {{}}}}\n    - {{on: {{errors: {{}}, retries: {{}}}}}}\n    - {{on: {{responseFlags: [upstream_rest]}}}}\n    - {{on: {{httpStatus: ['5xx']}}}}\n"
            ),
            &[
                ("5:12: policy.sampling.guard: ", "`0` is nothing; write a decimal above 0"),
                ("7:12: policy.sampling.keep[0].on: ", "says nothing; write `errors: {}`"),
                ("8:12: policy.sampling.keep[1].on: ", "says several things; keep one"),
                (
                    "9:29: policy.sampling.keep[2].on.responseFlags[0]: ",
                    "is no response flag; did you mean `upstream_reset`",
                ),
                ("10:26: policy.sampling.keep[3].on.httpStatus[0]: ", "`5xx` is no status of HTTP"),
            ],
        ),
        (
            format!(
                "{SMALL}policy:\n  sampling:\n    head:\n      rules:\n      - {{name: a, match: {{method: get, path: {{type: Template, value: /a}}}}, action: {{never: {{}}}}}}\n"
            ),
            &[
                ("7:35: policy.sampling.head.rules[0].match.method: ", "has lower-case letters"),
                ("7:70: policy.sampling.head.rules[0].match.path.value: ", "has no `{name}`"),
            ],
        ),
        (
            format!(
                "{SMALL}policy:\n  sampling:\n    head:\n      rules:\n      - {{name: a, match: {{method: GET, source: {{}}}}, action: {{never: {{}}}}}}\n      - {{name: a, action: {{never: {{}}}}}}\n"
            ),
            &[
                ("7:48: policy.sampling.head.rules[0].match.source: ", "asks for nothing"),
                ("8:16: policy.sampling.head.rules[1].name: ", "`a` is the name of a rule above"),
            ],
        ),
        (
            format!("{SMALL}policy: {{propagation: {{inject: [b3], clear: [w3c, b3]}}}}\n"),
            &[("3:51: policy.propagation.clear[1]: ", "is in `inject` too")],
        ),
        (
            format!("{SMALL}policy: {{propagation: {{extract: [w3c, w3c]}}}}\n"),
            &[("3:39: policy.propagation.extract[1]: ", "`w3c` is there twice")],
        ),
        (
            format!("{SMALL}policy: {{propagation: {{inject: [b4]}}}}\n"),
            &[("3:33: policy.propagation.inject[0]: ", "`b4` is not known here")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{}}}}]}}\n"),
            &[("3:45: policy.destinations[0].otlpGrpc.endpoint: ", "is missing; add a URL")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, zipkin: {{}}}}]}}\n"),
            &[("3:43: policy.destinations[0].zipkin.endpoint: ", "is missing; add a URL")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, otlpHttp: {{}}}}]}}\n"),
            &[("3:45: policy.destinations[0].otlpHttp: ", "leads nowhere; add `endpoint:")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{endpoint: 'http://a/b'}}}}]}}\n"),
            &[("3:56: policy.destinations[0].otlpGrpc.endpoint: ", "has a path, which gRPC sets itself")],
        ),
        (
            format!(
                "{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{endpoint: 'http://a', tls: {{}}, headers: [{{name: x}}]}}}}]}}\n"
            ),
            &[
                ("3:68: policy.destinations[0].otlpGrpc.tls: ", "stands beside an endpoint in clear text"),
                ("3:87: policy.destinations[0].otlpGrpc.headers[0]: ", "exactly one of"),
            ],
        ),
        (
            format!(
                "{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{endpoint: 'http://a', headers: [{{name: Host, value: x}}]}}}}]}}\n"
            ),
            &[("3:85: policy.destinations[0].otlpGrpc.headers[0].name: ", "that HTTP itself sets")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c}}]}}\n"),
            &[("3:25: policy.destinations[0]: ", "leads nowhere; add `otlpGrpc:")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, stdout: {{}}, file: {{path: x}}}}]}}\n"),
            &[("3:25: policy.destinations[0]: ", "both `file` and `stdout`")],
        ),
        (
            format!("{SMALL}policy:\n  destinations:\n  - {{name: c, stdout: {{}}}}\n  - {{name: c, stdout: {{}}}}\n"),
            &[("6:12: policy.destinations[1].name: ", "`c` is the name of destinations[0]")],
        ),
        // Upstreams.
        (
            format!("{SMALL}upstreams:\n- name: a\n"),
            &[("4:3: upstreams[0].addresses: ", "is missing; add a list, each host and port")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: []}}\n"),
            &[("4:24: upstreams[0].addresses: ", "is empty; add an address")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [cart]}}\n- {{name: b, addresses: [\"x:0\"]}}\n"),
            &[
                ("4:25: upstreams[0].addresses[0]: ", "`cart` has no port; write a host and a port"),
                ("5:25: upstreams[1].addresses[0]: ", "`x:0` has port 0"),
            ],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: \"x:1\"}}\n"),
            &[("4:24: upstreams[0].addresses: ", "not a list; write a list")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"]}}\n- {{name: a, addresses: [\"x:1\"]}}\n"),
            &[("5:10: upstreams[1].name: ", "`a` is the name of upstreams[0]; give it a name of its own")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a b, addresses: [\"x:1\"]}}\n"),
            &[("4:10: upstreams[0].name: ", "`a b` has a character that no name has")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"], tls: {{cert: c}}}}\n"),
            &[("4:45: upstreams[0].tls.cert: ", "has no `key`")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"], tls: {{key: c}}}}\n"),
            &[("4:44: upstreams[0].tls.key: ", "has no `cert`")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"], tls: {{serverName: \"a:1\"}}}}\n"),
            &[("4:51: upstreams[0].tls.serverName: ", "write a host without port")],
        ),
        // Addresses that collide.
        (
            listener("mode: inbound\nupstream: app").replace("127.0.0.1:0", "127.0.0.1:14000"),
            &[("7:12: listeners[0].address: ", "127.0.0.1:14000 is taken by admin.address; give each its own port")],
        ),
        // Listeners.
        (
            listener("mode: inbound\nupstream: ap"),
            &[(
                "9:13: listeners[0].upstream: ",
                "`ap` is not an upstream; did you mean `app`? the upstreams are `app`",
            )],
        ),
        (
            listener("mode: inbound"),
            &[("6:3: listeners[0]: ", "leads nowhere; add `upstream` or `routes`, or make it `transparent`")],
        ),
        (
            listener("mode: gateway"),
            &[("6:3: listeners[0]: ", "leads nowhere; add `upstream`, `routes` or `httpsRedirect`")],
        ),
        (
            listener("mode: gateway\ntransparent: true\nupstream: app"),
            &[("9:16: listeners[0].transparent: ", "not for a gateway")],
        ),
        (
            listener("mode: inbound\nupstream: app\ntls: {certificates: [{cert: c, key: k}]}"),
            &[("10:3: listeners[0].tls: ", "is for a gateway; leave it out")],
        ),
        (
            listener("mode: gateway\nupstream: app\ntls: {certificates: []}"),
            &[("10:23: listeners[0].tls.certificates: ", "is empty; add a certificate")],
        ),
        (
            listener("mode: gateway\nupstream: app\nprotocol: tls\ntls: {certificates: [{cert: c, key: k}]}"),
            &[("10:13: listeners[0].protocol: ", "passes TLS through, but `tls` ends it here")],
        ),
        (
            listener("mode: inbound\nupstream: app\nhttpsRedirect: true"),
            &[("10:18: listeners[0].httpsRedirect: ", "is for a gateway")],
        ),
        (
            listener("mode: gateway\nupstream: app\nhttpsRedirect: true\ntls: {certificates: [{cert: c, key: k}]}"),
            &[("10:18: listeners[0].httpsRedirect: ", "nothing to redirect where `tls` is spoken")],
        ),
        (
            listener("mode: gateway\nhttpsRedirect: true\nprotocol: opaque"),
            &[("10:13: listeners[0].protocol: ", "write `detect` or `http`")],
        ),
        (listener("mode: outbound\ntrustedHops: 1"), &[("9:16: listeners[0].trustedHops: ", "is for a gateway")]),
        (
            listener("mode: outbound\ndetectTimeout: 2s"),
            &[("9:18: listeners[0].detectTimeout: ", "`2s` is out of bounds; write `1ms` to `1s`")],
        ),
        (
            listener("mode: outbound\nopaquePorts: [25, 0]"),
            &[("9:21: listeners[0].opaquePorts[1]: ", "is `0`; write a port, 1 to 65535")],
        ),
        (
            listener("mode: outbound\nopaquePorts: [80]\nhttpPorts: [80]"),
            &[("10:15: listeners[0].httpPorts[0]: ", "80 is in `opaquePorts` too")],
        ),
        (listener("mode: outbound\ntrust: continue"), &[("9:10: listeners[0].trust: ", "did you mean `Continue`?")]),
        // Routes.
        (route("upstream: ap"), &[("11:15: listeners[0].routes[0].upstream: ", "did you mean `app`?")]),
        (
            route("upstream: app\nmatch: {path: /a, pathPrefix: /a}"),
            &[("12:23: listeners[0].routes[0].match.pathPrefix: ", "stands beside `path`; keep one of")],
        ),
        (
            route("upstream: app\nmatch: {path: cart}"),
            &[("12:19: listeners[0].routes[0].match.path: ", "`cart` does not begin with `/`")],
        ),
        (
            route("upstream: app\nmatch: {path: \"/{id}\"}"),
            &[("12:19: listeners[0].routes[0].match.path: ", "as only a `pathTemplate` has")],
        ),
        (
            route("upstream: app\nmatch: {host: \"shop:80\"}"),
            &[("12:19: listeners[0].routes[0].match.host: ", "write a host without port")],
        ),
        (
            route("upstream: app\nmatch: {method: get}"),
            &[("12:21: listeners[0].routes[0].match.method: ", "`get` has lower-case letters")],
        ),
        (
            route("upstream: app\nmatch: {headers: {\"a b\": x}}"),
            &[("12:30: listeners[0].routes[0].match.headers.a b: ", "is not a header's name")],
        ),
        (
            route("upstream: app\nmatch: {headers: {a: x, A: y}}"),
            &[("12:29: listeners[0].routes[0].match.headers.A: ", "for the second time")],
        ),
        (
            route("upstream: app\nmatch: {headers: {a: 5}}"),
            &[("12:26: listeners[0].routes[0].match.headers.a: ", "write it in quotes")],
        ),
        (
            route("upstream: app\nretry: {attempts: 11}"),
            &[("12:23: listeners[0].routes[0].retry.attempts: ", "write `1` to `10`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 0}"),
            &[("12:23: listeners[0].routes[0].retry.attempts: ", "write `1` to `10`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, on: [\"200\"]}"),
            &[("12:31: listeners[0].routes[0].retry.on[0]: ", "`200` is not known here; write `connectFailure`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, on: []}"),
            &[("12:30: listeners[0].routes[0].retry.on: ", "is empty, so nothing is tried again")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, on: [reset, timeout]}"),
            &[("12:38: listeners[0].routes[0].retry.on[1]: ", "waits for `attemptTimeout`")],
        ),
        (
            route("upstream: app\ntimeout: 1s\nretry: {attempts: 1, attemptTimeout: 2s}"),
            &[("13:42: listeners[0].routes[0].retry.attemptTimeout: ", "longer than the route's `timeout`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, backoff: 1s}"),
            &[("12:35: listeners[0].routes[0].retry.backoff: ", "is longer than `backoffMax`")],
        ),
        (
            route("upstream: app\ntimeout: 1s\nidleTimeout: 2s"),
            &[("13:18: listeners[0].routes[0].idleTimeout: ", "is longer than `timeout`")],
        ),
        (
            listener(
                "mode: inbound\nroutes:\n- {name: a, upstream: app}\n- {name: a, match: {path: /x}, upstream: app}",
            ),
            &[
                ("11:5: listeners[0].routes[1]: ", "is never reached: `a` above takes every request"),
                ("11:12: listeners[0].routes[1].name: ", "is the name of routes[0]"),
            ],
        ),
        (
            listener(
                "mode: inbound\nroutes:\n- {name: a, match: {path: /x}, upstream: app}\n- {name: b, match: {path: /x}, upstream: app}",
            ),
            &[("11:22: listeners[0].routes[1].match: ", "is that of a route above")],
        ),
        (
            listener(
                "mode: gateway\ntls: {certificates: [{cert: c, key: k}]}\nroutes:\n- {name: a, match: {sni: x.example}, upstream: app}",
            ),
            &[("11:23: listeners[0].routes[0].match.sni: ", "`tls` of this listener ends it")],
        ),
        (
            listener("mode: inbound\nprotocol: http\nroutes:\n- {name: a, match: {sni: x.example}, upstream: app}"),
            &[("11:23: listeners[0].routes[0].match.sni: ", "`protocol` is http; make `protocol` tls or detect")],
        ),
        (
            listener("mode: inbound\nroutes:\n- {name: a, match: {sni: x.example, path: /}, upstream: app}"),
            &[("10:23: listeners[0].routes[0].match.sni: ", "stands beside fields of HTTP")],
        ),
        (
            listener("mode: inbound\nprotocol: tls\nroutes:\n- {name: a, match: {path: /}, upstream: app}"),
            &[("11:22: listeners[0].routes[0].match: ", "asks for HTTP, but `protocol` of this listener is tls")],
        ),
        (
            listener(
                "mode: inbound\nroutes:\n- {name: a, match: {pathPrefix: /}, upstream: app}\n- {name: b, match: {sni: x.example}, upstream: app}\n- {name: c, match: {path: /x}, upstream: app}\n- {name: d, upstream: app}",
            ),
            &[("12:5: listeners[0].routes[2]: ", "is never reached: `a` above takes every request")],
        ),
        (
            route("upstream: app\nmatch: {headers: {Host: x}}"),
            &[("12:29: listeners[0].routes[0].match.headers.Host: ", "match by `host`")],
        ),
        (format!("{SMALL}telemetry: {{log: \"info,debug\"}}\n"), &[("3:18: telemetry.log: ", "has two levels")]),
        (
            format!("{SMALL}status: {{address: 8080}}\nupstreams: [{{name: 1.10, addresses: [\"x:1\"]}}]\n"),
            &[
                (
                    "3:19: status.address: ",
                    "is `8080` without quotes, which is not text; write an IP address and a port",
                ),
                ("4:20: upstreams[0].name: ", "is `1.1` without quotes, which is not text"),
            ],
        ),
        (format!("{SMALL}drain: {{timeout: 1.5}}\n"), &[("3:18: drain.timeout: ", "`1.5` is not a whole number")]),
    ];
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
fn a_variable_overrides_the_file() {
    let config = with(
        EXAMPLE,
        &[
            ("SPANMESH_ADMIN__ADDRESS", "127.0.0.1:1"),
            ("SPANMESH_NODE__SERVICE_VERSION", "1.10"),
            ("SPANMESH_LISTENERS__0__ADDRESS", "127.0.0.1:2"),
            ("SPANMESH_LISTENERS__2__ROUTES__0__MATCH__METHOD", "PUT"),
            ("SPANMESH_LISTENERS__1__TRANSPARENT", "false"),
            ("SPANMESH_LISTENERS__1__OPAQUE_PORTS", "[25, 26]"),
            ("SPANMESH_LIMITS__HEADER_TIMEOUT", "3s"),
            ("SPANMESH_UPSTREAMS__2__NAME", "new"),
            ("SPANMESH_UPSTREAMS__2__ADDRESSES__0", "new:1"),
            ("SPANMESH_WORKERS", "2"),
            ("SPANMESH_POLICY__DESTINATIONS__0__FILE__PATH", "elsewhere"),
        ],
    )
    .unwrap();
    assert_eq!(config.admin.address.port(), 1);
    assert_eq!(config.node.service_version, "1.10");
    assert_eq!(config.listeners[0].address.port(), 2);
    assert_eq!(config.listeners[2].routes[0].matches.method.as_deref(), Some("PUT"));
    assert!(!config.listeners[1].transparent);
    assert_eq!(config.listeners[1].opaque_ports, [25, 26]);
    assert_eq!(config.limits.header_timeout, Duration::from_secs(3));
    assert_eq!(config.upstreams[2].addresses, [Address { host: "new".into(), port: 1 }]);
    assert_eq!(config.workers, Some(2));
    assert_eq!(config.policy.destinations[0].to, Target::File("elsewhere".into()));
}

#[test]
fn an_error_in_a_variable_names_the_variable() {
    for (name, value, says) in [
        ("SPANMESH_ADMIN__ADDRESS", "here", "admin.address: `here` has no port; "),
        ("SPANMESH_LIMITS__HEADER_TIMEOUT", "10", "limits.headerTimeout: `10` has no unit; "),
        ("SPANMESH_LIMITS", "{streams: 0}", "limits.streams: `0` is out of bounds; "),
        ("SPANMESH_LIMITS", "{", "limits: is not valid YAML: "),
        ("SPANMESH_WORKERS", "", "workers: is ``; "),
        ("SPANMESH_LISTENERS__0__UPSTREAM", "ap", "listeners[0].upstream: `ap` is not an upstream; "),
        ("SPANMESH_ADMIN_ADDRESS", "x", "names no field; did you mean `SPANMESH_ADMIN__ADDRESS`?"),
    ] {
        let found = with(EXAMPLE, &[(name, value)]).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(&format!("{name}: {says}")), "{found:#?}");
    }
}

#[test]
fn a_variable_can_give_what_the_file_lacks() {
    let config = with("version: 1\n", &[("SPANMESH_ROLE", "gateway"), ("OTEL_SERVICE_NAME", "edge")]).unwrap();
    assert_eq!((config.role, config.node.service.as_str()), (Role::Gateway, "edge"));
    let ours = [("SPANMESH_NODE__SERVICE", "ours"), ("OTEL_SERVICE_NAME", "theirs")];
    assert_eq!(with(SMALL, &ours).unwrap().node.service, "ours");
    let config = with(SMALL, &[("OTEL_RESOURCE_ATTRIBUTES", "service.name")]).unwrap();
    assert_eq!(config.warnings.len(), 1);
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
