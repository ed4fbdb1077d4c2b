//! What the proxy answers by itself comes from one table, and each such answer is logged and counted like any other.

use http::StatusCode;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, eventually, run};

const REQUESTS: &str = "spanmesh_proxy_requests_total";

/// No one listens here.
fn nobody() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address")
}

async fn counted(proxy: &Proxy, flag: &str, class: &str) {
    let flag = format!("flag=\"{flag}\"");
    let class = format!("\"{class}\"");
    eventually("it is counted", || proxy.metric(REQUESTS, &[&flag, &class]) == 1.0).await;
}

#[test]
fn a_request_without_a_route_and_one_without_an_upstream_are_answered_from_the_table() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let proxy = Proxy::start(&format!(
                "listeners:\n- name: in\n  mode: gateway\n  address: '127.0.0.1:0'\n  routes:\n\
                 \x20 - {{name: gone, match: {{path: /gone}}, upstream: gone}}\n\
                 upstreams:\n- {{name: gone, addresses: ['{}']}}\n",
                nobody()
            ));
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            for (number, path, status, flag, class) in
                [(0, "/none", 404, "no_route", "4xx"), (1, "/gone", 503, "connect_failed", "5xx")]
            {
                let answer = client.get(path).await;
                assert_eq!(answer.status.as_u16(), status);
                let text = String::from_utf8(answer.body.to_vec()).expect("text");
                assert!(text.starts_with(&format!("{flag}: ")), "{text}");
                let line = proxy.logged(number + 1).await.remove(number);
                assert_eq!((&line["flag"], &line["status"]), (&flag.into(), &status.into()));
                assert!(text.contains(line["traceId"].as_str().expect("a trace")), "{text} {line}");
                counted(&proxy, flag, class).await;
            }
            let request = client.request("HEAD", "/none").body(spanmesh_tests::origin::empty()).expect("request");
            let answer = client.whole(request).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_FOUND, 0));
        });
    }
}

#[test]
fn an_ambiguous_request_is_refused_and_its_connection_closed() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::between(origin.address, Protocol::Http1);
        let bad = [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        ];
        for (number, head) in bad.into_iter().enumerate() {
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write(head).await;
            let answer = String::from_utf8(wire.rest().await).expect("text");
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head:?}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            let line = proxy.logged(number + 1).await.remove(number);
            assert_eq!((&line["flag"], &line["status"]), (&"bad_request".into(), &400.into()));
        }
        assert_eq!(origin.requests.get(), 0);
    });
}

#[test]
fn a_head_that_cannot_be_read_is_logged_and_counted_as_a_request() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::between(origin.address, Protocol::Http1);
        let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(100_000));
        for (number, head, status, flag) in [
            (0, "GET / HTTP/1.1\r\nhost: a\r\nbad name: x\r\n\r\n", 400, "bad_request"),
            (1, large.as_str(), 431, "too_large"),
        ] {
            let mut wire = Wire::connect(proxy.address("in")).await;
            // The proxy may close before it has read everything.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, head.as_bytes()).await;
            if status == 400 {
                let answer = String::from_utf8(wire.rest().await).expect("text");
                assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            }
            let line = proxy.logged(number + 1).await.remove(number);
            assert_eq!((&line["flag"], &line["status"]), (&flag.into(), &status.into()), "{line}");
            assert_eq!(line["protocol"], "HTTP/1.1");
            counted(&proxy, flag, "4xx").await;
        }
        assert_eq!(origin.requests.get(), 0);
    });
}

#[test]
fn a_head_that_never_ends_is_given_up_logged_and_counted() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\nlimits: {{headerTimeout: 200ms}}\n",
            origin.address
        ));
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
        wire.rest().await;
        let line = proxy.logged(1).await.remove(0);
        assert_eq!((&line["flag"], &line["protocol"]), (&"idle_timeout".into(), &"HTTP/1.1".into()));
        counted(&proxy, "idle_timeout", "none").await;

        // A client that leaves in the middle of a head was there, too.
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write("GET / HTTP/1.1\r\nhost: a\r\nx-left").await;
        drop(wire);
        assert_eq!(proxy.logged(2).await[1]["flag"], "client_reset");

        // One that closes between requests is no request.
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        wire.until("hello").await;
        drop(wire);
        eventually("the connection ends", || proxy.metric("spanmesh_proxy_connections_closed_total", &[]) >= 3.0).await;
        assert_eq!(proxy.logged(3).await.len(), 3);
    });
}
