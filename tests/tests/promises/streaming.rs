//! Nothing is held back: what one side has said the other side hears, however long the message still goes on.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use spanmesh_tests::origin::{Body, channel};
use spanmesh_tests::{Client, Origin, Proxy, each};

async fn next(body: &mut Incoming) -> Bytes {
    body.frame().await.expect("more").expect("a frame").into_data().expect("data")
}

#[test]
fn events_arrive_while_the_stream_is_open() {
    each(|client, upstream| async move {
        let (feed, stream) = channel();
        let stream = std::cell::RefCell::new(Some(stream));
        let origin = Origin::start(upstream, move |_| {
            let body = stream.borrow_mut().take().expect("one request");
            async { Response::builder().header("content-type", "text/event-stream").body(body).expect("answer") }
        })
        .await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        let request = client.request("GET", "/events").body(spanmesh_tests::origin::empty()).expect("request");
        // The head is there before the first event is.
        let mut body = client.send(request).await.expect("a head").into_body();
        for number in 0..5 {
            let event = format!("data: {number}\n\n");
            feed.send(Frame::data(event.clone().into())).await.expect("feed");
            assert_eq!(next(&mut body).await, event);
        }
        assert!(proxy.log().is_empty(), "the exchange closed before its last byte");
        drop(feed);
        assert!(body.collect().await.expect("an end").to_bytes().is_empty());
        assert_eq!(proxy.logged(1).await[0]["flag"], "ok");
    });
}

#[test]
fn both_directions_flow_at_once() {
    each(|client, upstream| async move {
        let origin = Origin::echo(upstream).await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        let (feed, body): (_, Body) = channel();
        let request = client.request("POST", "/chat").body(body).expect("request");
        feed.send(Frame::data("first".into())).await.expect("feed");
        let answer = client.send(request).await.expect("an answer before the request's end");
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body();
        assert_eq!(next(&mut body).await, "first");
        for number in 0..20 {
            let line = format!("line {number}");
            feed.send(Frame::data(line.clone().into())).await.expect("feed");
            assert_eq!(next(&mut body).await, line);
        }
        drop(feed);
        assert!(body.collect().await.expect("an end").to_bytes().is_empty());
    });
}
