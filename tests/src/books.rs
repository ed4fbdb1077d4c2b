//! An exporter by itself, without a proxy, so that its books can be read after its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use spanmesh_proto::{SpanId, TraceId};
use spanmesh_proxy::config;
use spanmesh_proxy::telemetry::metrics::{Registry, family};
use spanmesh_proxy::trace::export::json::Resource;
use spanmesh_proxy::trace::export::settings::Destination;
use spanmesh_proxy::trace::export::{Exporter, SpanBuffer};
use spanmesh_proxy::trace::span::{Batch, Span};

use crate::eventually;

/// An exporter and its metrics.
pub struct Books {
    name: &'static str,
    pub registry: Registry,
    exporter: Option<Exporter>,
    spans: Option<SpanBuffer>,
    made: u64,
}

impl Books {
    /// With one destination `there`.
    pub fn open(target: &str, delivery: &str) -> Self {
        Self::named("there", target, delivery)
    }

    pub fn named(name: &'static str, target: &str, delivery: &str) -> Self {
        let backoff = if delivery.contains("backoff") { "" } else { "backoff: 10ms, backoffMax: 20ms, " };
        let text = format!(
            "version: 1\nrole: standalone\npolicy: {{destinations: [{{name: {name}, {target}, \
             delivery: {{age: 5ms, {backoff}{delivery}}}}}]}}\n"
        );
        let config = config::parse(&text, "test.yaml", std::iter::empty()).expect("a configuration");
        let destinations = config.policy.destinations.iter().map(|to| Destination::new(to).expect("usable"));
        let registry = Registry::new();
        let exporter = Exporter::start(destinations.collect(), Resource::default(), &registry).expect("a thread");
        let spans = SpanBuffer::new(Some(exporter.batches()), &registry.shard());
        Self { name, registry, exporter: Some(exporter), spans: Some(spans), made: 0 }
    }

    /// Hands over so many spans.
    pub fn make(&mut self, count: u64) {
        let spans = self.spans.as_ref().expect("open");
        // One for all: a batch is told in one manner, and a new one closes it.
        let manner = Arc::default();
        for _ in 0..count {
            self.made += 1;
            spans.write(&manner, |batch| {
                let span = span(batch, self.made);
                batch.push(span);
                1
            });
        }
        spans.flush();
    }

    pub fn exported(&self) -> u64 {
        self.registry.shared().counter(family::SPANS_EXPORTED, &[self.name]).value()
    }

    pub fn rejected(&self) -> u64 {
        self.registry.shared().counter(family::SPANS_REJECTED, &[self.name]).value()
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        sum(&self.registry.render(), "spanmesh_proxy_spans_dropped_total", reason)
    }

    pub fn in_flight(&self) -> i64 {
        let text = self.registry.render();
        sum(&text, "spanmesh_proxy_spans_in_flight", "").cast_signed()
    }

    /// On the disk.
    pub fn spilled(&self) -> u64 {
        sum(&self.registry.render(), "spanmesh_proxy_spans_spilled", "")
    }

    pub fn recovered(&self) -> u64 {
        sum(&self.registry.render(), "spanmesh_proxy_spans_recovered_total", "")
    }

    /// Nothing is under way any more.
    pub async fn settled(&self) {
        eventually("nothing is in flight", || self.in_flight() == 0).await;
        self.balance(0);
    }

    pub fn balance(&self, slack: u64) {
        if let Some(wrong) = self.wrong(slack) {
            panic!("{wrong}");
        }
    }

    /// What does not add up.
    pub fn wrong(&self, slack: u64) -> Option<String> {
        let text = self.registry.render();
        let created = sum(&text, "spanmesh_proxy_spans_created_total", "");
        let gone = self.exported() + self.rejected() + self.dropped("");
        let accounted = gone.wrapping_add_signed(self.in_flight()) + self.spilled();
        let known = created + self.recovered();
        assert_eq!(created, self.made);
        let wrong = known.abs_diff(accounted) > slack;
        wrong.then(|| format!("{known} are known, {accounted} accounted for:\n{text}"))
    }

    /// The end, with so much time.
    pub async fn close(&mut self, time: Duration) {
        self.end(time).await;
        assert_eq!(self.in_flight(), 0);
        self.balance(0);
    }

    /// The end, whatever the books say.
    pub async fn end(&mut self, time: Duration) {
        self.spans = None;
        let exporter = self.exporter.take().expect("open");
        let deadline = Instant::now() + time;
        tokio::task::spawn_blocking(move || exporter.finish(deadline)).await.expect("join");
    }
}

fn sum(text: &str, name: &str, label: &str) -> u64 {
    let fits = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
    text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Its trace id begins with the number, its own id is the number and one.
fn span(batch: &mut Batch, number: u64) -> Span {
    let mut trace = [1; 16];
    trace[..8].copy_from_slice(&number.to_be_bytes());
    let trace = TraceId::from_bytes(trace).expect("an id");
    let id = SpanId::from_bytes((number + 1).to_be_bytes()).expect("an id");
    Span {
        start_nanos: number,
        end_nanos: number + 1,
        peer: "10.0.0.1:5000".parse().expect("an address"),
        client: "10.0.0.9".parse().expect("an address"),
        server: "10.0.0.2:8080".parse().expect("an address"),
        status: Some(200),
        method: batch.word(b"GET", 9),
        host: batch.word(b"shop", 9),
        path: batch.word(b"/a", 9),
        ..Span::new(trace, id)
    }
}
