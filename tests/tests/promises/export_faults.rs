//! Whatever a receiver does, every span is accounted for: created = exported + rejected + dropped + in flight, and what is
//! counted as exported is what the receiver took.

use std::time::{Duration, Instant};

use spanmesh_proto::{SpanId, TraceId};
use spanmesh_proxy::config;
use spanmesh_proxy::error::Flag;
use spanmesh_proxy::telemetry::metrics::{Registry, family};
use spanmesh_proxy::trace::export::json::Resource;
use spanmesh_proxy::trace::export::settings::Destination;
use spanmesh_proxy::trace::export::{Exporter, SpanBuffer};
use spanmesh_proxy::trace::span::{Batch, Kind, Side, Span, Words};
use spanmesh_tests::collector::{Act, Conduct, retry_info};
use spanmesh_tests::{Collector, Protocol, eventually, run};

/// An exporter by itself, so that its books can be read after its end.
struct Books {
    registry: Registry,
    exporter: Option<Exporter>,
    spans: Option<SpanBuffer>,
    made: u64,
}

impl Books {
    fn open(target: &str, delivery: &str) -> Self {
        let backoff = if delivery.contains("backoff") { "" } else { "backoff: 10ms, backoffMax: 20ms, " };
        let text = format!(
            "version: 1\nrole: standalone\npolicy: {{destinations: [{{name: there, {target}, \
             delivery: {{age: 5ms, {backoff}{delivery}}}}}]}}\n"
        );
        let config = config::parse(&text, "test.yaml", std::iter::empty()).expect("a configuration");
        let destinations = config.policy.destinations.iter().map(|to| Destination::new(to).expect("usable"));
        let registry = Registry::new();
        let exporter = Exporter::start(destinations.collect(), Resource::default(), Default::default(), &registry)
            .expect("a thread");
        let spans = SpanBuffer::new(Some(exporter.batches()), &registry.shard());
        Self { registry, exporter: Some(exporter), spans: Some(spans), made: 0 }
    }

    /// Hands over so many spans.
    fn make(&mut self, count: u64) {
        let spans = self.spans.as_ref().expect("open");
        for _ in 0..count {
            self.made += 1;
            spans.write(|batch| {
                let span = span(batch, self.made);
                batch.push(span);
                1
            });
        }
        spans.flush();
    }

    fn exported(&self) -> u64 {
        self.registry.shared().counter(family::SPANS_EXPORTED, &["there"]).value()
    }

    fn rejected(&self) -> u64 {
        self.registry.shared().counter(family::SPANS_REJECTED, &["there"]).value()
    }

    fn dropped(&self, reason: &str) -> u64 {
        sum(&self.registry.render(), "spanmesh_proxy_spans_dropped_total", reason)
    }

    fn in_flight(&self) -> i64 {
        let text = self.registry.render();
        sum(&text, "spanmesh_proxy_spans_in_flight", "").cast_signed()
    }

    /// Nothing is under way any more.
    async fn settled(&self) {
        eventually("nothing is in flight", || self.in_flight() == 0).await;
        self.balance(0);
    }

    fn balance(&self, slack: u64) {
        let text = self.registry.render();
        let created = sum(&text, "spanmesh_proxy_spans_created_total", "");
        let accounted = self.exported() + self.rejected() + self.dropped("") + self.in_flight().cast_unsigned();
        assert_eq!(created, self.made);
        assert!(created.abs_diff(accounted) <= slack, "{created} created, {accounted} accounted for:\n{text}");
    }

    /// The end, with so much time.
    async fn close(&mut self, time: Duration) {
        self.spans = None;
        let exporter = self.exporter.take().expect("open");
        let deadline = Instant::now() + time;
        tokio::task::spawn_blocking(move || exporter.finish(deadline)).await.expect("join");
        assert_eq!(self.in_flight(), 0);
        self.balance(0);
    }
}

fn sum(text: &str, name: &str, label: &str) -> u64 {
    let fits = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
    text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

fn span(batch: &mut Batch, number: u64) -> Span {
    let mut trace = [1; 16];
    trace[..8].copy_from_slice(&number.to_be_bytes());
    Span {
        trace: TraceId::from_bytes(trace).expect("an id"),
        id: SpanId::from_bytes((number + 1).to_be_bytes()).expect("an id"),
        parent: None,
        flags: 1,
        kind: Kind::Server,
        side: Side::Server,
        start_nanos: number,
        end_nanos: number + 1,
        protocol: None,
        grpc: false,
        secure: false,
        peer: "10.0.0.1:5000".parse().expect("an address"),
        client: "10.0.0.9".parse().expect("an address"),
        server: "10.0.0.2:8080".parse().expect("an address"),
        status: Some(200),
        grpc_status: None,
        flag: Flag::Ok,
        resent: 0,
        cause: None,
        sent: 0,
        received: 0,
        method: batch.word(b"GET", 9),
        host: batch.word(b"shop", 9),
        path: batch.word(b"/a", 9),
        query: Words::default(),
        route: Words::default(),
        route_source: None,
        agent: Words::default(),
        reports: Words::default(),
        custom: Words::default(),
        context: Default::default(),
        times: Default::default(),
    }
}

fn answer(status: u16) -> Act {
    Act::Answer(status, Vec::new(), b"as told")
}

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// What the acts make of ten spans: requests in all, exported, rejected, dropped for this reason.
fn becomes(protocol: Protocol, acts: Vec<Act>, requests: usize, exported: u64, rejected: u64, reason: &'static str) {
    run(async move {
        let what = format!("{protocol:?} {acts:?}");
        let collector = Collector::start(protocol).await;
        collector.will(acts);
        let mut books = Books::open(&collector.target(protocol, ""), "");
        books.make(10);
        books.settled().await;
        assert_eq!((books.exported(), books.rejected()), (exported, rejected), "{what}");
        assert_eq!(books.dropped(reason), 10 - exported - rejected, "{what}");
        // One more, so that no request that should not be is still to come.
        books.make(1);
        books.close(Duration::from_secs(5)).await;
        assert_eq!(collector.requests(), requests + 1, "{what}");
        assert_eq!(books.exported(), collector.taken(), "{what}");
    });
}

#[test]
fn what_may_be_sent_again_is_and_arrives_once() {
    for status in [429, 502, 503, 504] {
        becomes(Protocol::Http1, vec![answer(status), answer(status)], 3, 10, 0, "none");
    }
    for code in [1, 4, 10, 11, 14, 15] {
        becomes(Protocol::Http2, vec![Act::Status(code, Vec::new())], 2, 10, 0, "none");
    }
    becomes(Protocol::Http2, vec![Act::Status(8, retry_info(1))], 2, 10, 0, "none");
}

#[test]
fn what_must_not_be_sent_again_is_not() {
    for status in [400, 401, 403, 404, 408, 415, 500, 501] {
        becomes(Protocol::Http1, vec![answer(status)], 1, 0, 0, "\"refused\"");
    }
    becomes(Protocol::Http1, vec![answer(413)], 1, 0, 0, "\"too_large\"");
    for code in [2, 3, 5, 6, 7, 9, 12, 13, 16] {
        becomes(Protocol::Http2, vec![Act::Status(code, Vec::new())], 1, 0, 0, "\"refused\"");
    }
}

#[test]
fn a_part_that_is_rejected_is_counted_and_not_sent_again() {
    for protocol in BOTH {
        becomes(protocol, vec![Act::Partial(3, "too old")], 1, 7, 3, "none");
    }
}

#[test]
fn too_large_a_request_is_halved_once() {
    let large = || Act::Status(8, Vec::new());
    becomes(Protocol::Http2, vec![large()], 3, 10, 0, "none");
    becomes(Protocol::Http2, vec![large(), large()], 3, 5, 0, "\"too_large\"");
    becomes(Protocol::Http2, vec![large(), large(), large()], 3, 0, 0, "\"too_large\"");
}

#[test]
fn a_yes_that_is_none_does_not_count_as_one() {
    let says = |kind: &str, body| Act::Answer(200, vec![("content-type", kind.to_owned())], body);
    becomes(Protocol::Http1, vec![says("text/html", b"<html>welcome</html>")], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http1, vec![says("application/x-protobuf", b"\xff\xff\xff")], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http1, vec![says("application/json", b"[1]")], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http2, vec![Act::Message(b"\xff\xff\xff")], 1, 0, 0, "\"bad_answer\"");
}

#[test]
fn redirects_are_not_followed() {
    run(async {
        let (collector, other) = (Collector::start(Protocol::Http1).await, Collector::start(Protocol::Http1).await);
        for status in [301, 302, 307, 308] {
            let location = ("location", format!("http://{}/v1/traces", other.address));
            collector.will([Act::Answer(status, vec![location], b"")]);
        }
        let mut books = Books::open(&collector.target(Protocol::Http1, ""), "");
        for _ in 0..4 {
            books.make(10);
            books.settled().await;
        }
        assert_eq!((books.dropped("\"redirected\""), other.requests()), (40, 0));
    });
}

#[test]
fn a_receiver_that_names_a_time_is_not_asked_before() {
    for (protocol, act) in [
        (Protocol::Http1, Act::Answer(503, vec![("retry-after", "1".to_owned())], b"")),
        (Protocol::Http2, Act::Status(14, retry_info(1000))),
    ] {
        run(async move {
            let collector = Collector::start(protocol).await;
            collector.will([act]);
            let mut books = Books::open(&collector.target(protocol, ""), "");
            books.make(10);
            books.settled().await;
            let requests = collector.state.requests.borrow();
            let [first, second] = &requests[..] else { panic!("{} requests", requests.len()) };
            assert!(second.at - first.at >= Duration::from_secs(1), "{:?}", second.at - first.at);
        });
    }
}

#[test]
fn connections_that_break_off_cost_nothing() {
    // The first bytes of an answer, of HTTP/1.1 and of HTTP/2: a whole SETTINGS and half a HEADERS.
    let half: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\n\x0a",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x20\x01\x04\0\0\0\x01\x88",
    ];
    for (protocol, half) in BOTH.into_iter().zip(half) {
        run(async move {
            let collector = Collector::start(protocol).await;
            collector.meets([
                Conduct::Cut(b""),
                Conduct::Cut(half),
                Conduct::Cut(b"SSH-2.0-OpenSSH_9.2\r\n"),
                Conduct::Deaf,
                Conduct::Serve,
            ]);
            let mut books = Books::open(&collector.target(protocol, ""), "timeout: 300ms");
            books.make(10);
            books.settled().await;
            assert_eq!((books.exported(), collector.taken()), (10, 10), "{protocol:?}");
            assert_eq!(collector.state.connections.get(), 5);
        });
    }
}

#[test]
fn the_books_balance_under_load_with_every_kind_of_fault_and_after_the_end() {
    for protocol in BOTH {
        run(async move {
            let collector = Collector::start(protocol).await;
            let faults = match protocol {
                Protocol::Http1 => vec![
                    answer(503),
                    answer(400),
                    answer(429),
                    Act::Partial(5, "no"),
                    Act::Answer(200, vec![("content-type", "text/html".to_owned())], b"<html>"),
                    Act::Answer(302, vec![("location", "http://127.0.0.1:1/".to_owned())], b""),
                    Act::Late(Duration::from_millis(20)),
                    answer(413),
                    Act::Hang,
                ],
                Protocol::Http2 => vec![
                    Act::Status(14, Vec::new()),
                    Act::Status(3, Vec::new()),
                    Act::Status(8, Vec::new()),
                    Act::Status(8, retry_info(1)),
                    Act::Partial(5, "no"),
                    Act::Message(b"\xff"),
                    Act::Late(Duration::from_millis(20)),
                    Act::Hang,
                ],
            };
            collector.meets([Conduct::Cut(b""), Conduct::Serve, Conduct::Cut(b"HTTP/1.1 2"), Conduct::Serve]);
            // A request that is taken must not be late, or it is sent twice. Small requests and a small queue, so that the oldest have to go as well.
            let mut books = Books::open(&collector.target(protocol, ""), "timeout: 2s, spans: 50, queue: 64Ki");
            for round in 0..60 {
                collector.will([faults[round % faults.len()].clone()]);
                books.make(100);
                books.balance(256);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            collector.state.acts.borrow_mut().clear();
            books.close(Duration::from_secs(30)).await;
            assert_eq!(books.exported(), collector.taken(), "{protocol:?}");
            assert!(books.exported() > 0 && books.rejected() > 0 && books.dropped("queue_full") > 0);
        });
    }
}

#[test]
fn what_cannot_be_sent_before_the_end_is_counted() {
    for protocol in BOTH {
        for hangs in [true, false] {
            run(async move {
                let collector = Collector::start(protocol).await;
                collector.usually(if hangs { Act::Hang } else { answer_of(protocol) });
                let mut books = Books::open(&collector.target(protocol, ""), "spans: 100, backoff: 1h, backoffMax: 1h");
                books.make(1000);
                let begun = Instant::now();
                books.close(Duration::from_millis(500)).await;
                assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
                assert_eq!((books.exported(), books.dropped("\"ended\"")), (0, 1000), "{protocol:?} {hangs}");
            });
        }
    }
}

/// One after which there is another try.
fn answer_of(protocol: Protocol) -> Act {
    match protocol {
        Protocol::Http1 => answer(503),
        Protocol::Http2 => Act::Status(14, Vec::new()),
    }
}
