//! A reset says why. HTTP/2 on both sides, so the reason that one side gave is what the other side sees.

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use spanmesh_tests::by_hand::{self, StreamOrigin};
use spanmesh_tests::{Client, Protocol, Proxy, Wire, run};
use tokio::sync::mpsc;

fn get(proxy: &Proxy) -> Request<()> {
    Request::get(format!("http://{}/", proxy.address("in"))).body(()).expect("request")
}

const REASONS: [Reason; 5] =
    [Reason::CANCEL, Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM, Reason::PROTOCOL_ERROR];

#[test]
fn an_origins_reset_before_the_head_keeps_its_reason() {
    for reason in REASONS {
        run(async move {
            let origin = StreamOrigin::start(move |_, mut respond| async move { respond.send_reset(reason) }).await;
            let proxy = Proxy::between(origin.address, Protocol::Http2);
            let mut client = by_hand::connect(proxy.address("in")).await;
            let (answer, _) = client.send_request(get(&proxy), true).expect("send");
            assert_eq!(answer.await.expect_err("a reset").reason(), Some(reason));
            assert_eq!(proxy.logged(1).await[0]["flag"], "upstream_reset");
        });
    }
}

#[test]
fn an_origins_reset_after_the_head_keeps_its_reason() {
    // NO_ERROR in the middle of a body is no end of it either.
    for reason in REASONS.into_iter().chain([Reason::NO_ERROR]) {
        run(async move {
            let origin = StreamOrigin::start(move |_, mut respond| async move {
                let mut body = respond.send_response(Response::new(()), false).expect("send");
                body.send_data(Bytes::from_static(b"half"), false).expect("send");
                body.reserve_capacity(1);
                // Once the half is on its way.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                body.send_reset(reason);
            })
            .await;
            let proxy = Proxy::between(origin.address, Protocol::Http2);
            let mut client = by_hand::connect(proxy.address("in")).await;
            let (answer, _) = client.send_request(get(&proxy), true).expect("send");
            let mut body = answer.await.expect("a head").into_body();
            let ended = loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error.reason(),
                    None => break None,
                }
            };
            assert_eq!(ended, Some(reason));
            assert_eq!(proxy.logged(1).await[0]["flag"], "upstream_reset");
        });
    }
}

#[test]
fn a_clients_cancel_reaches_the_origin_before_and_after_the_head() {
    for after_head in [false, true] {
        run(async move {
            let (arrived, mut requests) = mpsc::channel(1);
            let (told, mut reasons) = mpsc::channel(1);
            let origin = StreamOrigin::start(move |_, mut respond| {
                let (arrived, told) = (arrived.clone(), told.clone());
                async move {
                    let body = after_head.then(|| respond.send_response(Response::new(()), false).expect("send"));
                    arrived.send(()).await.expect("the test listens");
                    let reason = match body {
                        Some(mut body) => std::future::poll_fn(|cx| body.poll_reset(cx)).await,
                        None => std::future::poll_fn(|cx| respond.poll_reset(cx)).await,
                    };
                    told.send(reason.expect("a reset")).await.expect("the test listens");
                }
            })
            .await;
            let proxy = Proxy::between(origin.address, Protocol::Http2);
            let mut client = by_hand::connect(proxy.address("in")).await;
            let (answer, mut stream) = client.send_request(get(&proxy), false).expect("send");
            requests.recv().await.expect("a request");
            let _body = if after_head { Some(answer.await.expect("a head").into_body()) } else { None };
            stream.send_reset(Reason::CANCEL);
            assert_eq!(reasons.recv().await, Some(Reason::CANCEL));
            assert_eq!(proxy.logged(1).await[0]["flag"], "client_reset");
        });
    }
}

#[test]
fn a_client_without_streams_gets_an_answer_from_the_table_or_a_cut_body() {
    run(async move {
        let origin = StreamOrigin::start(|request, mut respond| async move {
            if request.uri().path() == "/before" {
                return respond.send_reset(Reason::INTERNAL_ERROR);
            }
            let mut body = respond.send_response(Response::new(()), false).expect("send");
            body.send_data(Bytes::from_static(b"half"), false).expect("send");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            body.send_reset(Reason::INTERNAL_ERROR);
        })
        .await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let answer = client.get("/before").await;
        assert_eq!(answer.status.as_u16(), 502);
        assert!(answer.body.starts_with(b"upstream_reset"), "{:?}", answer.body);
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write("GET /after HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = wire.rest().await;
        assert!(!answer.ends_with(b"0\r\n\r\n"), "a body that was cut looks whole");
        assert!(answer.ends_with(b"half\r\n"), "{:?}", String::from_utf8_lossy(&answer));
        proxy.logged(2).await;
    });
}
