//! A span says what of its time was the proxy's own: the wait for an attempt and for a connection, the making of that,
//! and how long the answer took to begin.

use std::time::Duration;

use http::Response;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::origin::full;
use spanmesh_tests::{Authority, Client, Dir, Origin, Protocol, Proxy, each, run};

/// Microseconds, if the span says them.
fn time(span: &Span, name: &str) -> Option<i64> {
    let key = format!("spanmesh.time.{name}");
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(micros) => Some(*micros),
        other => panic!("{key}: {other:?}"),
    }
}

async fn slow(protocol: Protocol) -> Origin {
    Origin::start(protocol, |_| async {
        tokio::time::sleep(SLOW).await;
        Response::new(full("x"))
    })
    .await
}

const SLOW: Duration = Duration::from_millis(50);

#[test]
fn the_first_request_says_what_its_connection_took_and_the_next_has_waited_for_none() {
    each(|client, upstream| async move {
        let origin = slow(upstream).await;
        let proxy = Proxy::routed(&[origin.address], upstream, "", "", "");
        let mut client = Client::connect(client, proxy.address("in")).await;
        client.get("/").await;
        proxy.spanned(2).await;
        client.get("/").await;
        let spans = proxy.spanned(4).await;
        let [_, first, server, second] = &spans[..] else { panic!("{spans:?}") };
        assert!(time(first, "connect").is_some() && time(first, "pool").is_some(), "{first:?}");
        for unknown in ["connect", "pool", "tls"] {
            assert_eq!((time(second, unknown), time(server, unknown)), (None, None), "{unknown}: {spans:?}");
        }
        for span in &spans {
            let whole = i64::try_from(span.end_time_unix_nano - span.start_time_unix_nano).expect("a time") / 1000;
            let begun = time(span, "first_byte").expect("it was answered");
            assert!(begun >= 50_000 && begun <= whole + 1000, "{begun} of {whole}");
            assert!(time(span, "queue").is_some());
        }
        let before = [time(first, "connect"), time(first, "pool")].into_iter().flatten().sum::<i64>();
        assert!(before <= time(first, "first_byte").expect("it was answered"), "{first:?}");
    });
}

#[test]
fn an_inbound_side_says_all_of_it_in_its_one_span() {
    run(async {
        let origin = slow(Protocol::Http1).await;
        let proxy = Proxy::between(origin.address, Protocol::Http1);
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        client.get("/").await;
        let span = proxy.spanned(1).await.remove(0);
        for known in ["queue", "pool", "connect", "first_byte"] {
            assert!(time(&span, known).is_some(), "{known}: {span:?}");
        }
    });
}

#[test]
fn a_handshake_with_the_upstream_has_its_own_time() {
    run(async {
        let authority = Authority::new();
        let answer = |_| async { Response::new(full("x")) };
        let origin = Origin::secure(authority.leaf(&["app.example"]).server(&["h2"]), answer).await;
        let dir = Dir::new();
        dir.write("root.crt", authority.pem());
        let yaml = format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], tls: {{rootFile: DIR/root.crt, serverName: app.example}}}}\n",
            origin.address
        );
        let proxy = Proxy::start_in(dir, &yaml);
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        client.get("/").await;
        let span = proxy.spanned(1).await.remove(0);
        assert!(time(&span, "tls").is_some_and(|tls| tls > 0), "{span:?}");
        assert!(time(&span, "connect").is_some(), "{span:?}");
    });
}

#[test]
fn an_attempt_that_follows_another_says_how_long_it_was_held_back() {
    run(async {
        let origin = Origin::start(Protocol::Http1, |_| async {
            let mut answer = Response::new(full("x"));
            *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            answer
        })
        .await;
        let retry = "retry: {attempts: 1, on: ['503'], backoff: 1ms}";
        let proxy = Proxy::routed(&[origin.address], Protocol::Http1, "", retry, "");
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        client.get("/").await;
        let spans = proxy.spanned(3).await;
        let [_, first, second] = &spans[..] else { panic!("{spans:?}") };
        let gap = second.start_time_unix_nano.saturating_sub(first.end_time_unix_nano) / 1000;
        let queue = time(second, "queue").expect("it followed");
        assert!(gap.abs_diff(queue.cast_unsigned()) <= 1, "{queue} of {gap}");
        assert!(time(first, "first_byte").is_some() && time(second, "first_byte").is_some());
    });
}
