//! TLS to upstreams: verified by the root and the name that the configuration gives, in the protocol that both know,
//! and a failure that says what to mend.

use http::Response;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Authority, Client, Dir, Origin, Protocol, Proxy, run};

/// A proxy before `upstream`; `tls` and `more` are fields of the upstream. The authority's certificate is DIR/root.crt.
fn proxy(authority: &Authority, upstream: std::net::SocketAddr, tls: &str, more: &str) -> Proxy {
    let dir = Dir::new();
    dir.write("root.crt", authority.pem());
    Proxy::start_in(
        dir,
        &format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{upstream}'], tls: {{{tls}}}, {more}}}\n"
        ),
    )
}

const GOOD: &str = "rootFile: DIR/root.crt, serverName: app.example";

/// Speaks these protocols, and answers with the version of each request.
async fn origin(authority: &Authority, alpn: &[&str]) -> Origin {
    Origin::secure(authority.leaf(&["app.example"]).server(alpn), |request| async move {
        Response::new(full(format!("{:?}", request.version())))
    })
    .await
}

#[test]
fn the_next_hop_speaks_what_was_asked_for_or_what_both_know() {
    for client in [Protocol::Http1, Protocol::Http2] {
        for (protocol, known, expected) in [
            ("auto", &["h2", "http/1.1"][..], "HTTP/2.0"),
            ("auto", &["http/1.1"], "HTTP/1.1"),
            ("auto", &["h2"], "HTTP/2.0"),
            ("auto", &[], "HTTP/1.1"),
            ("http1", &["h2", "http/1.1"], "HTTP/1.1"),
            ("http1", &[], "HTTP/1.1"),
            ("http2", &["h2", "http/1.1"], "HTTP/2.0"),
        ] {
            run(async move {
                let authority = Authority::new();
                let origin = origin(&authority, known).await;
                let proxy = proxy(&authority, origin.address, GOOD, &format!("protocol: {protocol}"));
                let mut client = Client::connect(client, proxy.address("in")).await;
                for _ in 0..2 {
                    assert_eq!(client.get("/").await.body, expected, "{protocol} {known:?}");
                }
                assert_eq!(origin.connections.get(), 1, "the connection is kept");
            });
        }
    }
}

/// What the client and the access log are told.
async fn failure(client: Protocol, proxy: &Proxy) -> (u16, String, String) {
    let mut client = Client::connect(client, proxy.address("in")).await;
    let request = client.request("GET", "/").body(empty()).expect("request");
    let answer = client.whole(request).await;
    let line = proxy.logged(1).await.remove(0);
    let flag = line["flag"].as_str().unwrap_or_default().to_owned();
    let body = String::from_utf8(answer.body.to_vec()).expect("text");
    assert!(body.starts_with(&flag), "{body}");
    (answer.status.as_u16(), flag, line["detail"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_certificate_for_another_name_is_refused_and_both_names_are_told() {
    for client in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let authority = Authority::new();
            let origin = origin(&authority, &[]).await;
            let proxy = proxy(
                &authority,
                origin.address,
                "rootFile: DIR/root.crt, serverName: other.example",
                "protocol: auto",
            );
            let (status, flag, detail) = failure(client, &proxy).await;
            assert_eq!((status, flag.as_str()), (503, "tls_failed"));
            assert!(detail.contains("other.example") && detail.contains("app.example"), "{detail}");
            assert_eq!(proxy.metric("spanmesh_proxy_upstream_connect_failures_total", &["flag=\"tls_failed\""]), 1.0);
            assert_eq!(origin.requests.get(), 0);
        });
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused_and_the_root_file_is_named() {
    run(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let origin = origin(&theirs, &[]).await;
        let proxy = proxy(&ours, origin.address, GOOD, "protocol: auto");
        let (status, flag, detail) = failure(Protocol::Http1, &proxy).await;
        assert_eq!((status, flag.as_str()), (503, "tls_failed"));
        assert!(detail.contains("rootFile"), "{detail}");
    });
}

#[test]
fn an_upstream_that_speaks_no_tls_is_told_as_such() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let authority = Authority::new();
            let origin = Origin::hello(protocol).await;
            let proxy = proxy(&authority, origin.address, GOOD, "connectTimeout: 2s");
            let (status, flag, detail) = failure(Protocol::Http1, &proxy).await;
            assert_eq!((status, flag.as_str()), (503, "tls_failed"));
            assert!(detail.contains("plain HTTP"), "{detail}");
        });
    }
}

#[test]
fn an_upstream_that_does_not_know_the_protocol_asked_for_is_told_as_such() {
    run(async {
        let authority = Authority::new();
        // One refuses by an alert, one that knows nothing of ALPN goes on without.
        for (known, expected) in [(&["http/1.1"][..], "tls_failed"), (&[], "protocol_error")] {
            let origin = origin(&authority, known).await;
            let proxy = proxy(&authority, origin.address, GOOD, "protocol: http2");
            let (_, flag, detail) = failure(Protocol::Http1, &proxy).await;
            assert_eq!(flag, expected);
            assert!(detail.contains("h2") || detail.contains("protocol"), "{detail}");
        }
    });
}

#[test]
fn a_handshake_that_never_ends_counts_to_the_time_to_connect() {
    run(async {
        let authority = Authority::new();
        let (_listener, address) = spanmesh_tests::Wire::listen().await;
        let proxy = proxy(&authority, address, GOOD, "connectTimeout: 200ms");
        let (status, flag, detail) = failure(Protocol::Http1, &proxy).await;
        assert_eq!((status, flag.as_str()), (504, "connect_timeout"));
        assert!(detail.contains("TLS"), "{detail}");
    });
}

#[test]
fn opaque_bytes_travel_under_tls_too() {
    run(async {
        let authority = Authority::new();
        let acceptor = authority.leaf(&["app.example"]).server(&[]);
        let (listener, address) = spanmesh_tests::Wire::listen().await;
        let dir = Dir::new();
        dir.write("root.crt", authority.pem());
        let proxy = Proxy::start_in(
            dir,
            &format!(
                "listeners:\n- {{name: out, mode: outbound, address: '127.0.0.1:0', protocol: opaque, upstream: db}}\n\
                 upstreams:\n- {{name: db, addresses: ['{address}'], tls: {{{GOOD}}}}}\n"
            ),
        );
        let mut client = spanmesh_tests::Wire::connect(proxy.address("out")).await;
        client.write("ping").await;
        client.finish().await;
        let stream = listener.accept().await.expect("accept").0;
        let mut stream = acceptor.accept(stream).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        let mut came = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut came).await.expect("the end");
        assert_eq!(came, b"ping");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"pong").await.expect("write");
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("shutdown");
        assert_eq!(client.rest().await, b"pong");
        assert_eq!(proxy.logged(1).await[0]["flag"], "ok");
    });
}
