//! gRPC in its four shapes, frame by frame: the proxy knows of it no more than its status.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use spanmesh_tests::origin::{Body, channel, empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, eventually, run};
use tokio::sync::mpsc::Sender;

/// A length-prefixed message.
fn message(text: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(text.len()).expect("short"));
    bytes.put_slice(text.as_bytes());
    bytes.freeze()
}

fn status(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static("as%20asked"));
    Frame::trailers(trailers)
}

/// Reads whole messages from a body.
struct Messages(Incoming, BytesMut);

impl Messages {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(prefix) = self.1.get(1..5) {
                let length = u32::from_be_bytes(prefix.try_into().expect("four")) as usize;
                if self.1.len() >= 5 + length {
                    let message = self.1.split_to(5 + length);
                    return Some(String::from_utf8(message[5..].to_vec()).expect("text"));
                }
            }
            match self.0.frame().await?.expect("a frame").into_data() {
                Ok(data) => self.1.extend_from_slice(&data),
                Err(trailers) => {
                    assert_eq!(trailers.into_trailers().expect("trailers")["grpc-message"], "as%20asked");
                    return None;
                }
            }
        }
    }
}

/// Answers as its path says.
async fn service() -> Origin {
    Origin::start(Protocol::Http2, |request| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let path = request.uri().path().to_owned();
        let answer = Response::builder().header("content-type", "application/grpc");
        if path == "/shop.Cart/TrailersOnly" {
            let answer = answer.header("grpc-status", "5").header("grpc-message", "no%20such%20cart");
            return answer.body(empty()).expect("answer");
        }
        let (feed, body) = channel();
        tokio::task::spawn_local(async move {
            let mut asked = Messages(request.into_body(), BytesMut::new());
            let say = async |text: String| feed.send(Frame::data(message(&text))).await.expect("feed");
            match path.as_str() {
                "/shop.Cart/Unary" => {
                    let one = asked.next().await.expect("a message");
                    assert!(
                        asked.0.frame().await.is_none_or(|frame| frame
                            .expect("an end")
                            .into_data()
                            .expect("data")
                            .is_empty())
                    );
                    say(format!("re: {one}")).await;
                }
                "/shop.Cart/ServerStreaming" => {
                    let one = asked.next().await.expect("a message");
                    for number in 0..3 {
                        say(format!("{one} {number}")).await;
                    }
                }
                "/shop.Cart/ClientStreaming" => {
                    let mut all = Vec::new();
                    while all.len() < 3 {
                        all.push(asked.next().await.expect("a message"));
                    }
                    say(all.join("+")).await;
                }
                _ => {
                    for _ in 0..3 {
                        let one = asked.next().await.expect("a message");
                        say(format!("re: {one}")).await;
                    }
                }
            }
            feed.send(status("0")).await.expect("feed");
        });
        answer.body(body).expect("answer")
    })
    .await
}

async fn call(client: &mut Client, method: &str) -> (Sender<Frame<Bytes>>, Body, http::request::Builder) {
    let (feed, body) = channel();
    let request = client.request("POST", &format!("/shop.Cart/{method}"));
    (feed, body, request.header("content-type", "application/grpc+proto").header("te", "trailers"))
}

#[test]
fn the_four_shapes_pass_with_their_trailers() {
    run(async {
        let origin = service().await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        for (method, asked, answered) in [
            ("Unary", vec!["a"], vec!["re: a"]),
            ("ServerStreaming", vec!["a"], vec!["a 0", "a 1", "a 2"]),
            ("ClientStreaming", vec!["a", "b", "c"], vec!["a+b+c"]),
        ] {
            let (feed, body, request) = call(&mut client, method).await;
            for one in asked {
                feed.send(Frame::data(message(one))).await.expect("feed");
            }
            drop(feed);
            let answer = client.send(request.body(body).expect("request")).await.expect("answer");
            let mut messages = Messages(answer.into_body(), BytesMut::new());
            for one in answered {
                assert_eq!(messages.next().await.as_deref(), Some(one), "{method}");
            }
            assert_eq!(messages.next().await, None, "{method}");
        }

        // Both at once: each message is answered before the next is said.
        let (feed, body, request) = call(&mut client, "Both").await;
        let answer = client.send(request.body(body).expect("request")).await.expect("answer");
        let mut messages = Messages(answer.into_body(), BytesMut::new());
        for one in ["x", "y", "z"] {
            feed.send(Frame::data(message(one))).await.expect("feed");
            assert_eq!(messages.next().await, Some(format!("re: {one}")));
        }
        assert_eq!(messages.next().await, None);
        drop(feed);

        let lines = proxy.logged(4).await;
        assert!(lines.iter().all(|line| line["flag"] == "ok" && line["grpcStatus"] == 0), "{lines:?}");
        let counted = proxy.metric("spanmesh_proxy_grpc_responses_total", &["\"0\""]);
        assert_eq!(counted, 4.0);
    });
}

#[test]
fn an_answer_of_trailers_only_passes() {
    run(async {
        let origin = service().await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let (_feed, _, request) = call(&mut client, "TrailersOnly").await;
        let answer = client.whole(request.body(full(message("a"))).expect("request")).await;
        assert_eq!(answer.headers["grpc-status"], "5");
        assert_eq!(answer.headers["grpc-message"], "no%20such%20cart");
        assert!(answer.body.is_empty() && answer.trailers.is_none());
        assert_eq!(proxy.logged(1).await[0]["grpcStatus"], 5);
    });
}

#[test]
fn the_proxys_own_answers_to_calls_are_grpc() {
    run(async {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let proxy = Proxy::between(nobody, Protocol::Http2);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let (_feed, _, request) = call(&mut client, "Unary").await;
        let answer = client.whole(request.body(full(message("a"))).expect("request")).await;
        assert_eq!(answer.status.as_u16(), 200);
        assert_eq!(answer.headers["content-type"], "application/grpc");
        assert_eq!(answer.headers["grpc-status"], "14");
        assert!(answer.body.is_empty());
        let line = proxy.logged(1).await.remove(0);
        assert_eq!((&line["flag"], &line["grpcStatus"]), (&"connect_failed".into(), &14.into()));
        eventually("the call is counted", || proxy.metric("spanmesh_proxy_grpc_responses_total", &["\"14\""]) == 1.0)
            .await;
    });
}
