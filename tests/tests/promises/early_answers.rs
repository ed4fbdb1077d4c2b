//! An answer that comes before the request has ended, and answers whose length is said in two ways.

use bytes::Bytes;
use hyper::body::Frame;
use spanmesh_tests::client::whole;
use spanmesh_tests::origin::channel;
use spanmesh_tests::{Client, Protocol, Proxy, Wire, run};

#[test]
fn an_upload_that_was_refused_early_goes_out_again_whole() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- name: in\n  mode: inbound\n  address: '127.0.0.1:0'\n  routes:\n  \
             - {{name: all, upstream: app, retry: {{attempts: 1, on: ['503'], backoff: 1ms, bodyLimit: 1Mi}}}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}'], protocol: http1}}\n"
        ));
        let (feed, body) = channel();
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let request = client.request("PUT", "/upload").header("transfer-encoding", "chunked").body(body);
        let answer = tokio::task::spawn_local(async move {
            whole(client.send(request.expect("request")).await.expect("an answer")).await.expect("whole")
        });
        let piece = |number: usize| Bytes::from(vec![b'a' + (number % 26) as u8; 4096]);
        let sent: Vec<u8> = (0..PIECES).flat_map(piece).collect();

        // The first attempt is refused after a few pieces, while the origin goes on reading.
        let mut first = None;
        for number in 0..PIECES {
            feed.send(Frame::data(piece(number))).await.expect("fed");
            if number == 5 {
                let mut origin = Wire::accept(&listener).await;
                origin.head().await;
                origin.write("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
                first = Some(origin);
            }
            tokio::task::yield_now().await;
        }
        drop(feed);
        let mut second = Wire::accept(&listener).await;
        second.head().await;
        let mut received = Vec::new();
        loop {
            let line = second.until("\r\n").await;
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk's size");
            if size == 0 {
                break;
            }
            received.extend(second.exactly(size).await);
            second.until("\r\n").await;
        }
        assert_eq!(received.len(), sent.len());
        assert!(received == sent, "the body has a hole");
        second.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nkept").await;
        assert_eq!(answer.await.expect("join").body, "kept");
        drop(first);
    });
}

#[test]
fn an_answer_in_a_coding_that_nobody_asked_for_is_refused() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::between(address, Protocol::Http1);
        tokio::task::spawn_local(async move {
            let mut origin = Wire::accept(&listener).await;
            origin.head().await;
            origin.write("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n").await;
            origin.rest().await;
        });
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(client.get("/").await.status, 502);
        assert_eq!(proxy.logged(1).await[0]["flag"], "protocol_error");
    });
}

const PIECES: usize = 60;
