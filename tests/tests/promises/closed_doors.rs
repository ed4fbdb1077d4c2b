//! The proxy is no way into what was closed: an inbound side forwards to its own pod only, a forward proxy never to the
//! proxy itself.

use http::Request;
use spanmesh_tests::origin::empty;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, run};

#[test]
fn a_transparent_listener_that_is_reached_directly_sends_nobody_anywhere() {
    for mode in ["inbound", "outbound"] {
        run(async move {
            let proxy = Proxy::start(&format!(
                "role: sidecar\nlisteners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', transparent: true}}\n"
            ));
            for bytes in ["GET / HTTP/1.1\r\nhost: elsewhere.example\r\n\r\n", "\x01\x02\x03", ""] {
                let mut client = Wire::connect(proxy.address("side")).await;
                // It may be closed before this arrives.
                let _ = client.stream.try_write(bytes.as_bytes());
                assert_eq!(client.rest().await, b"");
            }
            for line in proxy.logged(3).await {
                assert_eq!((&line["flag"], &line["listener"]), (&"denied".into(), &"side".into()));
            }
            assert_eq!(proxy.metric("spanmesh_proxy_connections_refused_total", &["reason=\"denied\""]), 3.0);
            assert_eq!(proxy.metric("spanmesh_proxy_tcp_connections_total", &["flag=\"denied\""]), 3.0);
        });
    }
}

/// A forward proxy.
fn forward() -> Proxy {
    Proxy::start("role: sidecar\nlisteners:\n- {name: out, mode: outbound, address: '127.0.0.1:0'}\n")
}

#[test]
fn a_forward_proxy_takes_clients_to_where_they_name() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = forward();
        let mut client = Wire::connect(proxy.address("out")).await;
        let target = origin.address;
        client.write(format!("GET http://{target}/x HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n")).await;
        let answer = String::from_utf8(client.rest().await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");

        let mut client = Wire::connect(proxy.address("out")).await;
        client.write(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        client.write("GET / HTTP/1.1\r\nhost: inside\r\nconnection: close\r\n\r\n").await;
        let answer = String::from_utf8(client.rest().await).expect("text");
        assert!(answer.ends_with("hello"), "{answer}");
    });
}

#[test]
fn a_forward_proxy_is_no_way_to_the_proxys_own_servers() {
    run(async {
        let proxy = forward();
        let bound = &proxy.running().bound;
        let mut count = 0;
        for port in [bound.admin.port(), bound.status.port(), proxy.address("out").port()] {
            for host in ["127.0.0.1", "localhost", "0.0.0.0", "127.8.8.8", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"] {
                let authority = format!("{host}:{port}");
                for line in [format!("GET http://{authority}/config"), format!("CONNECT {authority}")] {
                    let mut client = Wire::connect(proxy.address("out")).await;
                    client.write(format!("{line} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")).await;
                    let answer = String::from_utf8(client.rest().await).expect("text");
                    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("denied"), "{line}: {answer}");
                    count += 1;
                }
                let mut client = Client::connect(Protocol::Http2, proxy.address("out")).await;
                let request = Request::builder().method("CONNECT").uri(authority).body(empty()).expect("request");
                assert_eq!(client.whole(request).await.status, 403);
                count += 1;
            }
        }
        assert!(proxy.logged(count).await.iter().all(|line| line["flag"] == "denied"));
        assert_eq!(proxy.metric("spanmesh_proxy_requests_total", &["flag=\"denied\""]), count as f64);
    });
}

#[test]
fn only_a_forward_proxy_opens_tunnels() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = Proxy::between(origin.address, Protocol::Http1);
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            let request = Request::builder().method("CONNECT").uri(origin.address.to_string());
            let answer = client.whole(request.body(empty()).expect("request")).await;
            assert_eq!(answer.status, 403);
            assert_eq!(proxy.logged(1).await[0]["flag"], "denied");
            assert_eq!(origin.connections.get(), 0);
        });
    }
}
