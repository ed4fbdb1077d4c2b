//! Interim answers (103 and its like) are not passed on; they are counted, and disturb nothing.

use spanmesh_tests::by_hand::StreamOrigin;
use spanmesh_tests::{Client, Protocol, Proxy, Wire, eventually, run};

#[test]
fn early_hints_are_dropped_and_counted() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (listener, address) = Wire::listen().await;
            tokio::task::spawn_local(async move {
                let mut wire = Wire::accept(&listener).await;
                let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
                loop {
                    wire.head().await;
                    wire.write(hints).await;
                    // In a segment of its own, and together with another and the answer.
                    tokio::task::yield_now().await;
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    wire.write(format!("{hints}HTTP/1.1 102 Processing\r\n\r\n{answer}")).await;
                }
            });
            let proxy = Proxy::between(address, Protocol::Http1);
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            for _ in 0..2 {
                let answer = client.get("/").await;
                assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
                assert!(!answer.headers.contains_key("link"), "{:?}", answer.headers);
            }
            let dropped = "spanmesh_proxy_informational_dropped_total";
            eventually("four hints and two others are counted", || {
                proxy.metric(dropped, &["\"103\""]) == 4.0 && proxy.metric(dropped, &["\"other\""]) == 2.0
            })
            .await;
        });
    }
}

#[test]
fn early_hints_over_http2_disturb_nothing() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = StreamOrigin::start(|_, mut respond| async move {
                let hints = http::Response::builder().status(103).header("link", "</a.css>").body(()).expect("hints");
                respond.send_informational(hints).expect("send");
                let answer = http::Response::builder().status(200).body(()).expect("answer");
                let mut body = respond.send_response(answer, false).expect("send");
                body.send_data("ok".into(), true).expect("send");
            })
            .await;
            let proxy = Proxy::between(origin.address, Protocol::Http2);
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            let answer = client.get("/").await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
            assert!(!answer.headers.contains_key("link"), "{:?}", answer.headers);
        });
    }
}
