//! A stream that lives long is reported while it lives: a span below its own in each interval, and an event of its own when
//! it ends. Whatever carries it, and no more often than asked.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::origin::{Body, channel, empty};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, each, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;

const INTERNAL: i32 = 1;
/// The wall clock may be set a little between two readings.
const SLACK: u64 = 100_000_000;

fn int(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> Option<i64> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        other => panic!("{key}: {other:?}"),
    }
}

fn proxy(upstream: &str, mode: &str, listener: &str, protocol: Protocol) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', upstream: app{listener}}}\n\
         upstreams:\n- {{name: app, addresses: ['{upstream}'], protocol: {}}}\n\
         policy: {{interim: 1s, destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
        protocol.word()
    ))
}

/// The reports came first, each below the span that came last, which has an event for each.
fn check(spans: &[Span], name: &str, received: i64) {
    let (reports, own): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.kind == INTERNAL);
    assert!(reports.len() >= 2, "{spans:#?}");
    let parent = own.iter().find(|span| !span.events.is_empty()).expect("a span with events");
    assert_eq!(own.iter().filter(|span| !span.events.is_empty()).count(), 1);
    assert_eq!(parent.events.len(), reports.len());
    let mut before = parent.start_time_unix_nano;
    for (number, (report, event)) in reports.iter().zip(&parent.events).enumerate() {
        assert_eq!((&report.trace_id, &report.parent_span_id), (&parent.trace_id, &parent.span_id));
        assert_eq!(report.name, name);
        assert!(report.start_time_unix_nano.abs_diff(before) < SLACK, "each begins where the one before ended");
        assert!(report.end_time_unix_nano + SLACK >= before + 1_000_000_000, "once a second at most");
        assert_eq!(int(&report.attributes, "spanmesh.interim"), Some(number as i64 + 1));
        assert_eq!(int(&report.attributes, "spanmesh.bytes.received"), Some(received));
        assert_eq!(event.name, "spanmesh.interim");
        assert!(event.time_unix_nano.abs_diff(report.end_time_unix_nano) < SLACK);
        assert_eq!(int(&event.attributes, "spanmesh.bytes.received"), Some(received));
        before = report.end_time_unix_nano;
    }
    assert_eq!(parent.dropped_events_count, 0);
}

#[test]
fn an_answer_that_goes_on_is_reported_while_it_does() {
    each(|client, upstream| async move {
        for (mode, own) in [("inbound", 1), ("outbound", 1), ("gateway", 2)] {
            let feed: Rc<RefCell<Option<Sender<Frame<Bytes>>>>> = Rc::default();
            let keep = feed.clone();
            let origin = Origin::start(upstream, move |_| {
                let (feed, body): (_, Body) = channel();
                keep.borrow_mut().replace(feed);
                async move { Response::new(body) }
            })
            .await;
            let proxy = proxy(&origin.address.to_string(), mode, "", upstream);
            let mut client = Client::connect(client, proxy.address("side")).await;
            let request = client.request("GET", "/events").body(empty()).expect("request");
            let mut answer = client.send(request).await.expect("an answer");
            let say = feed.borrow().clone().expect("asked");
            say.send(Frame::data(Bytes::from_static(b"data: 1\n\n"))).await.expect("feed");
            assert!(answer.body_mut().frame().await.is_some());

            let alive = proxy.spanned(2).await;
            assert!(alive.iter().all(|span| span.kind == INTERNAL), "it is not over: {alive:?}");
            drop((say, feed.borrow_mut().take()));
            assert!(answer.into_body().collect().await.is_ok());
            let ended = |spans: &[Span]| spans.iter().filter(|span| span.kind != INTERNAL).count() == own;
            spanmesh_tests::eventually("its end", || ended(&proxy.spans())).await;
            check(&proxy.spans(), "GET /events", 9);
        }
    });
}

#[test]
fn a_connection_of_bytes_is_reported_while_it_lives() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut bytes = [0; 64];
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                stream.write_all(&bytes[..read]).await.expect("write");
            }
        });
        let proxy = proxy(&address.to_string(), "inbound", ", protocol: opaque", Protocol::Http1);
        let mut client = TcpStream::connect(proxy.address("side")).await.expect("connect");
        client.write_all(b"hello").await.expect("write");
        let mut echo = [0; 5];
        client.read_exact(&mut echo).await.expect("read");
        let alive = proxy.spanned(2).await;
        assert!(alive.iter().all(|span| span.kind == INTERNAL), "{alive:?}");
        drop(client);
        spanmesh_tests::eventually("its end", || proxy.spans().iter().any(|span| span.kind != INTERNAL)).await;
        check(&proxy.spans(), "TCP", 5);
    });
}

#[test]
fn what_is_short_or_not_sampled_is_not_reported() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = proxy(&origin.address.to_string(), "inbound", "", Protocol::Http1);
        let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
        client.get("/").await;
        let span = proxy.spanned(1).await.remove(0);
        assert!(span.kind != INTERNAL && span.events.is_empty());
    });
}
