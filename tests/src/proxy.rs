//! The proxy under test: the real program on port 0, in threads of this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;
use spanmesh_proxy::app::{self, Running};
use spanmesh_proxy::config::{self, Config, Problem};

use crate::{Dir, Origin, conventions, eventually};

pub struct Proxy {
    running: Option<Running>,
    pub dir: Dir,
}

impl Proxy {
    /// Starts with the given `listeners`, `upstreams` and whatever else, in YAML. The servers' addresses, an access log
    /// and a span file are added, unless the text has those sections itself, and listeners are declared as HTTP.
    pub fn start(yaml: &str) -> Self {
        Self::start_in(Dir::new(), yaml)
    }

    /// `DIR` in the text stands for the folder.
    pub fn start_in(dir: Dir, yaml: &str) -> Self {
        let text = complete(dir.as_ref(), yaml);
        // A test that makes as many spans as it can wants all of them, unless it is about the guard.
        let unguarded = ("SPANMESH_POLICY__SAMPLING__GUARD".to_owned(), "off".to_owned());
        // What is pushed stands alone: a control plane says itself what the guard is.
        let is_free = !yaml.contains("guard") && !yaml.contains("controlPlane");
        let environment = Some(unguarded).filter(|_| is_free).into_iter();
        Self::begin(dir, config::parse(&text, "test.yaml", environment), &text)
    }

    /// Starts from a file as it is, with these variables of the environment.
    pub fn load(dir: Dir, file: &Path, environment: impl Iterator<Item = (String, String)>) -> Self {
        Self::begin(dir, config::load(file, environment), "")
    }

    fn begin(dir: Dir, read: Result<Config, Vec<Problem>>, text: &str) -> Self {
        let config = match read {
            Ok(config) => config,
            Err(problems) => {
                let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
                panic!("the test's configuration is wrong:\n{}\n{text}", list.join("\n"));
            }
        };
        match app::start(config, false) {
            Ok(running) => Self { running: Some(running), dir },
            Err(error) => panic!("the proxy does not start: {error}"),
        }
    }

    /// One inbound listener `in` in front of one upstream `app`, which speaks what it is told.
    pub fn between(upstream: SocketAddr, protocol: crate::Protocol) -> Self {
        Self::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{upstream}'], protocol: {}}}\n",
            protocol.word()
        ))
    }

    /// One gateway `in` whose only route goes to one upstream `app` of these addresses. `upstream` and `route` are more
    /// fields of theirs, `rest` more sections of the file.
    pub fn routed(
        addresses: &[SocketAddr],
        protocol: crate::Protocol,
        upstream: &str,
        route: &str,
        rest: &str,
    ) -> Self {
        let addresses: Vec<_> = addresses.iter().map(|address| format!("'{address}'")).collect();
        Self::start(&format!(
            "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', \
             routes: [{{name: all, upstream: app, {route}}}]}}\n\
             upstreams:\n- {{name: app, addresses: [{}], protocol: {}, {upstream}}}\n{rest}\n",
            addresses.join(", "),
            protocol.word()
        ))
    }

    /// One listener `in` in front of one upstream of HTTP/1.1, with these `limits`.
    pub fn limited(mode: &str, origin: &Origin, limits: &str) -> Self {
        Self::start(&format!(
            "listeners:\n- {{name: in, mode: {mode}, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\nlimits: {{{limits}}}\n",
            origin.address
        ))
    }

    /// How often a limit was reached.
    pub fn reached(&self, limit: &str) -> f64 {
        self.metric("spanmesh_proxy_limits_reached_total", &[&format!("limit=\"{limit}\"")])
    }

    /// Waits until nothing is in flight and no client is connected any more.
    pub async fn at_rest(&self) {
        let all = ["requests_in_flight", "connections_active", "upstream_requests_in_flight"];
        let now = || all.map(|name| self.metric(&format!("spanmesh_proxy_{name}"), &[]));
        eventually(&format!("at rest, which {all:?} at 0 are"), || now() == [0.0; 3]).await;
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("running")
    }

    pub fn address(&self, listener: &str) -> SocketAddr {
        *self.running().bound.listeners.get(listener).expect("a listener of this name")
    }

    pub fn drain(&self) {
        self.running().drain();
    }

    /// Waits for the end, for example after a drain.
    pub async fn ended(&mut self) {
        let running = self.running.take().expect("running");
        let ended = tokio::task::spawn_blocking(move || running.wait()).await.expect("join");
        ended.expect("the proxy ended well");
    }

    /// A metric's value, summed over all series whose labels contain all of `labels`, such as `flag="ok"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.status("/metrics"), name, labels)
    }

    /// GET on the status server.
    pub fn status(&self, path: &str) -> String {
        plain(self.running().bound.status, "GET", path)
    }

    /// Any request to the admin server.
    pub fn admin(&self, method: &str, path: &str) -> String {
        plain(self.running().bound.admin, method, path)
    }

    /// The access log so far, one JSON object for each request.
    pub fn log(&self) -> Vec<Value> {
        json(&self.dir.path("access.log"))
    }

    /// Waits until the access log has so many lines.
    pub async fn logged(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} lines in the access log"), || self.log().len() >= count).await;
        self.log()
    }

    /// The spans written so far.
    pub fn spans(&self) -> Vec<Span> {
        spans(&self.dir)
    }

    pub async fn spanned(&self, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans"), || self.spans().len() >= count).await;
        self.spans()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.quit();
            let _ = running.wait();
        }
        if !std::thread::panicking() {
            // Whatever its test looked at.
            self.spans();
        }
    }
}

pub(crate) fn complete(dir: &Path, yaml: &str) -> String {
    let folder = dir.display().to_string();
    let mut text = String::from("version: 1\n");
    for (section, usual) in [
        ("role:", "role: standalone\n".to_owned()),
        ("workers:", "workers: 1\n".to_owned()),
        ("admin:", "admin: {address: '127.0.0.1:0'}\n".to_owned()),
        ("status:", "status: {address: '127.0.0.1:0'}\n".to_owned()),
        ("telemetry:", format!("telemetry: {{log: warn, accessLog: {{to: {folder}/access.log}}}}\n")),
        ("policy:", format!("policy: {{destinations: [{{name: file, file: {{path: {folder}/spans.jsonl}}}}]}}\n")),
    ] {
        let is_pushed = section == "policy:" && yaml.lines().any(|line| line.starts_with("controlPlane:"));
        if !is_pushed && !yaml.lines().any(|line| line.starts_with(section)) {
            text.push_str(&usual);
        }
    }
    for line in yaml.replace("DIR", &folder).lines() {
        text.push_str(&declared(line));
        text.push('\n');
    }
    text
}

/// A listener on one line carries HTTP unless it says otherwise, were it `protocol: detect`: on a machine that stalls for
/// longer than detection waits, a test's request would be carried as bytes.
fn declared(line: &str) -> String {
    let otherwise = ["protocol:", "Ports:", "detectTimeout:", "transparent:", "tls:"];
    match line.strip_prefix("- {name: ") {
        Some(rest) if rest.contains("mode: ") && !otherwise.iter().any(|word| rest.contains(word)) => {
            format!("- {{protocol: http, name: {rest}")
        }
        _ => line.to_owned(),
    }
}

/// Every line of a file, as JSON.
pub(crate) fn json(path: &Path) -> Vec<Value> {
    lines(path).iter().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// The spans in a folder's file. Each follows the conventions.
pub fn spans(dir: impl AsRef<Path>) -> Vec<Span> {
    let parse = |line: &String| serde_json::from_str::<ExportTraceServiceRequest>(line).expect("OTLP/JSON");
    let requests = lines(&dir.as_ref().join("spans.jsonl"));
    let mut spans = Vec::new();
    for told in requests.iter().flat_map(|line| parse(line).resource_spans) {
        let attributes = told.resource.map(|resource| resource.attributes).unwrap_or_default();
        assert_eq!(conventions::of_resource(&attributes), [""; 0], "a resource breaks the conventions");
        spans.extend(told.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    for span in &spans {
        let violations = conventions::violations(span);
        assert!(violations.is_empty(), "a span breaks the conventions: it {}\n{span:#?}", violations.join(", "));
    }
    spans
}

/// An attribute of a span; empty where there is none.
pub fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        None => "",
        other => panic!("{key}: {other:?}"),
    }
}

/// A metric's value in the text of `/metrics`, summed over all series whose labels contain all of `labels`.
pub(crate) fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| {
        let series = line.split_once(' ').map_or(*line, |(series, _)| series);
        series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
    };
    text.lines().filter(fits).filter_map(|line| line.split(" # ").next()?.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

pub(crate) fn lines(path: &Path) -> Vec<String> {
    // The last line may still be on its way.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole.lines().map(str::to_owned).collect()
}

/// The body of a plain answer, or the whole answer when it is not 200.
pub fn plain(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect to the proxy's own server");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => body.to_owned(),
        _ => answer,
    }
}
