//! A stream that lives long is reported while it lives: a span below its own in each interval, and an event of its own when
//! it ends. Whatever carries it, and no more often than asked.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::origin::{Body, channel, empty};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use super::upgrades::{asking, connected, switching};

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
        "listeners:\n- {{name: in, mode: {mode}, address: '127.0.0.1:0', upstream: app{listener}}}\n\
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

/// All at once, since each waits for its reports.
fn together<F: Future<Output = ()> + 'static>(bodies: impl IntoIterator<Item = F>) {
    run(async {
        let mut set = JoinSet::new();
        bodies.into_iter().for_each(|body| drop(set.spawn_local(body)));
        while let Some(ended) = set.join_next().await {
            ended.expect("it held");
        }
    });
}

/// Each mode of each pair of protocols, and how many spans of its own a request has there.
fn everywhere() -> impl Iterator<Item = (Protocol, Protocol, &'static str, usize)> {
    let modes = [("inbound", 1), ("outbound", 1), ("gateway", 2)];
    let pairs = Protocol::PAIRS.into_iter();
    pairs.flat_map(move |(client, upstream)| modes.map(|(mode, own)| (client, upstream, mode, own)))
}

/// Reports have come, and nothing has ended but requests that were refused.
async fn lives(proxy: &Proxy) {
    let reports = || proxy.spans().iter().filter(|span| span.kind == INTERNAL).count();
    spanmesh_tests::eventually("two reports", || reports() >= 2).await;
    let is_over =
        |span: &&Span| span.kind != INTERNAL && int(&span.attributes, "http.response.status_code") != Some(403);
    assert_eq!(proxy.spans().iter().find(is_over), None, "it is not over");
}

async fn ends(proxy: &Proxy, own: usize) -> Vec<Span> {
    let ended = |spans: &[Span]| spans.iter().filter(|span| span.kind != INTERNAL).count() == own;
    spanmesh_tests::eventually("its end", || ended(&proxy.spans())).await;
    proxy.spans()
}

#[test]
fn an_answer_that_goes_on_is_reported_while_it_does() {
    together(everywhere().map(async |(client, upstream, mode, own)| {
        let feed: Rc<RefCell<Option<Sender<Frame<Bytes>>>>> = Rc::default();
        let keep = feed.clone();
        let origin = Origin::start(upstream, move |_| {
            let (feed, body): (_, Body) = channel();
            keep.borrow_mut().replace(feed);
            async move { Response::new(body) }
        })
        .await;
        let proxy = proxy(&origin.address.to_string(), mode, "", upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        let request = client.request("GET", "/events").body(empty()).expect("request");
        let mut answer = client.send(request).await.expect("an answer");
        let say = feed.borrow().clone().expect("asked");
        say.send(Frame::data(Bytes::from_static(b"data: 1\n\n"))).await.expect("feed");
        assert!(answer.body_mut().frame().await.is_some());
        lives(&proxy).await;
        drop((say, feed.borrow_mut().take()));
        assert!(answer.into_body().collect().await.is_ok());
        check(&ends(&proxy, own).await, "GET /events", 9);
    }));
}

#[test]
fn a_stream_of_grpc_is_reported_while_it_lives() {
    together([("inbound", 1), ("outbound", 1), ("gateway", 2)].map(async |(mode, own)| {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            let (feed, body): (_, Body) = channel();
            tokio::task::spawn_local(async move {
                // What is asked comes back, and the status when no more is asked.
                let mut asked = request.into_body();
                while let Some(Ok(frame)) = asked.frame().await {
                    feed.send(frame).await.expect("feed");
                }
                let trailers =
                    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), "0".parse().expect("a value"))]);
                feed.send(Frame::trailers(trailers)).await.expect("feed");
            });
            Response::builder().header("content-type", "application/grpc").body(body).expect("answer")
        })
        .await;
        let proxy = proxy(&origin.address.to_string(), mode, "", Protocol::Http2);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let (feed, body) = channel();
        let request = client.request("POST", "/shop.Cart/Watch").header("te", "trailers");
        let request = request.header("content-type", "application/grpc").body(body).expect("request");
        let mut answer = client.send(request).await.expect("an answer");
        feed.send(Frame::data(Bytes::from_static(b"\0\0\0\0\x03abc"))).await.expect("feed");
        assert!(answer.body_mut().frame().await.is_some());
        lives(&proxy).await;
        drop(feed);
        let ended = answer.into_body().collect().await.expect("an end");
        assert_eq!(ended.trailers().expect("trailers")["grpc-status"], "0");
        check(&ends(&proxy, own).await, "shop.Cart/Watch", 8);
    }));
}

#[test]
fn a_websocket_is_reported_while_it_lives() {
    together(everywhere().map(async |(client, upstream, mode, own)| {
        let origin = switching(upstream, "websocket").await;
        let proxy = proxy(&origin.address.to_string(), mode, "", upstream);
        let (mut client, method) =
            (connected(client, &proxy).await, if client == Protocol::Http1 { "GET" } else { "CONNECT" });
        let request = asking(&client, "/socket", "websocket");
        let mut answer = client.send(request).await.expect("an answer");
        let mut io = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("a switch"));
        io.write_all(b"hello").await.expect("write");
        let mut echo = [0; 5];
        io.read_exact(&mut echo).await.expect("read");
        lives(&proxy).await;
        io.shutdown().await.expect("shutdown");
        let _ = io.read_to_end(&mut Vec::new()).await;
        drop(io);
        // The request before it was refused, and has its spans too.
        check(&ends(&proxy, 2 * own).await, &format!("{method} /socket"), 5);
    }));
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
        let mut client = TcpStream::connect(proxy.address("in")).await.expect("connect");
        client.write_all(b"hello").await.expect("write");
        let mut echo = [0; 5];
        client.read_exact(&mut echo).await.expect("read");
        lives(&proxy).await;
        drop(client);
        check(&ends(&proxy, 1).await, "TCP", 5);
    });
}

#[test]
fn what_is_short_or_not_sampled_is_not_reported() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = proxy(&origin.address.to_string(), "inbound", "", Protocol::Http1);
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        client.get("/").await;
        let span = proxy.spanned(1).await.remove(0);
        assert!(span.kind != INTERNAL && span.events.is_empty());
    });
}
