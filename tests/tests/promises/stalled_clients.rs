//! A client that does not read holds nothing for ever: the route's times end its exchange and free the upstream.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use spanmesh_tests::origin::{channel, empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, each, eventually, run};
use tokio::io::AsyncReadExt;

/// Answers `/large` without an end, and counts what it still sends; anything else with a word.
async fn origin(protocol: Protocol) -> (Origin, Rc<Cell<usize>>) {
    let sending = Rc::new(Cell::new(0));
    let count = sending.clone();
    let origin = Origin::start(protocol, move |request| {
        let count = count.clone();
        async move {
            if request.uri().path() != "/large" {
                return Response::new(full("small"));
            }
            let (feed, body) = channel();
            count.set(count.get() + 1);
            tokio::task::spawn_local(async move {
                while feed.send(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024]))).await.is_ok() {}
                count.set(count.get() - 1);
            });
            Response::new(body)
        }
    })
    .await;
    (origin, sending)
}

/// What a client holds that has asked and does not read.
enum Stalled {
    Http1(Wire),
    Http2(Client, Incoming),
}

async fn stall(protocol: Protocol, proxy: &Proxy) -> Stalled {
    let address = proxy.address("in");
    if protocol == Protocol::Http1 {
        let mut wire = Wire::connect(address).await;
        wire.write("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        return Stalled::Http1(wire);
    }
    let mut client = Client::connect(protocol, address).await;
    let request = client.request("GET", "/large").body(empty()).expect("request");
    let body = client.send(request).await.expect("a head").into_body();
    Stalled::Http2(client, body)
}

async fn freed(proxy: &Proxy, sending: &Cell<usize>) {
    eventually("nothing in flight", || {
        sending.get() == 0
            && ["requests_in_flight", "upstream_requests_in_flight"]
                .iter()
                .all(|name| proxy.metric(&format!("spanmesh_proxy_{name}"), &[]) == 0.0)
    })
    .await;
}

#[test]
fn an_answer_that_is_not_read_ends_after_the_idle_timeout_and_frees_the_upstream() {
    each(|client, upstream| async move {
        let (origin, sending) = origin(upstream).await;
        let proxy = Proxy::routed(&[origin.address], upstream, "", "idleTimeout: 2s", "");
        let mut held = stall(client, &proxy).await;
        eventually("the answer flows", || sending.get() == 1).await;
        // Its neighbours on the connection move all the time, and stay.
        if let Stalled::Http2(client, _) = &mut held {
            for _ in 0..200 {
                assert_eq!(client.get("/").await.body, "small");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        eventually("it was ended", || proxy.log().iter().any(|line| line["flag"] == "idle_timeout")).await;
        freed(&proxy, &sending).await;
        match held {
            Stalled::Http1(_) => proxy.at_rest().await,
            Stalled::Http2(mut client, mut body) => {
                assert_eq!(client.get("/").await.body, "small");
                while let Some(Ok(_)) = body.frame().await {}
                assert_eq!(proxy.log().iter().filter(|line| line["flag"] != "ok").count(), 1);
            }
        }
    });
}

#[test]
fn an_answer_that_is_not_read_ends_at_the_routes_timeout() {
    each(|client, upstream| async move {
        let (origin, sending) = origin(upstream).await;
        let proxy = Proxy::routed(&[origin.address], upstream, "", "timeout: 500ms", "");
        let held = stall(client, &proxy).await;
        assert_eq!(proxy.logged(1).await[0]["flag"], "request_timeout");
        freed(&proxy, &sending).await;
        drop(held);
    });
}

#[test]
fn a_client_that_reads_slowly_is_served_on() {
    run(async {
        let (origin, sending) = origin(Protocol::Http1).await;
        let proxy = Proxy::routed(&[origin.address], Protocol::Http1, "", "idleTimeout: 1s", "");
        let Stalled::Http1(mut wire) = stall(Protocol::Http1, &proxy).await else { return };
        let mut piece = vec![0; 1 << 20];
        for _ in 0..20 {
            wire.stream.read_exact(&mut piece).await.expect("it flows on");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(proxy.log().is_empty() && sending.get() == 1);
    });
}
