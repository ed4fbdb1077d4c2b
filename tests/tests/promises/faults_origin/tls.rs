//! Origins behind TLS.

use super::*;

/// Under TLS a connection's end counts only if it was announced: anyone on the way can close a TCP connection.
#[test]
fn an_end_without_tls_own_goodbye_is_no_end_of_a_body() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (answer, goodbye, seen, flag) in [
            ("HTTP/1.1 200 OK\r\n\r\nto the end", true, Whole("to the end"), "ok"),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", false, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", true, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", false, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", false, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole", false, Whole("whole"), "ok"),
            ("", false, Status(502), "upstream_closed"),
            ("", true, Status(502), "upstream_closed"),
        ] {
            run(async move {
                let authority = Authority::new();
                let acceptor = authority.leaf(&["a.example"]).server(&["http/1.1"]);
                let address = Wire::serve(move |wire, _| {
                    let acceptor = acceptor.clone();
                    async move {
                        let mut stream = acceptor.accept(wire.stream).await.expect("a handshake");
                        let mut head = vec![0; 4096];
                        let _ = stream.read(&mut head).await;
                        stream.write_all(answer.as_bytes()).await.expect("write");
                        stream.flush().await.expect("flush");
                        if goodbye {
                            let _ = stream.shutdown().await;
                        }
                        let (mut socket, _) = stream.into_inner();
                        let _ = socket.shutdown().await;
                        let _ = socket.read_to_end(&mut head).await;
                    }
                })
                .await;
                let proxy = secure(&authority, address);
                let what = format!("{protocol:?} {answer:?} goodbye: {goodbye}");
                assert_seen(&proxy, protocol, "GET", seen, Close, &what).await;
                assert_flag(&proxy, 1, flag, &what).await;
                nothing_left(&proxy).await;
            });
        }
    }
}

fn secure(authority: &Authority, address: std::net::SocketAddr) -> Proxy {
    let dir = Dir::new();
    dir.write("root.pem", authority.pem());
    Proxy::start_in(
        dir,
        &format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}'], idleTimeout: 300ms, http2IdleTimeout: 300ms, \
             connectTimeout: 1s, tls: {{rootFile: DIR/root.pem, serverName: a.example}}}}\n"
        ),
    )
}

#[test]
fn an_origin_that_leaves_during_the_handshake_is_a_503() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (read, answer, end, status, flag) in [
            (0, "", Close, 503, "tls_failed"),
            (0, "", Reset, 503, "tls_failed"),
            (1, "", Reset, 503, "tls_failed"),
            (100, "", Close, 503, "tls_failed"),
            (100, "\u{16}\u{3}\u{3}", Close, 503, "tls_failed"),
            (100, "HTTP/1.1 400 Bad Request\r\n\r\n", Close, 503, "tls_failed"),
            (100, "\u{16}\u{3}\u{3}", Stay, 504, "connect_timeout"),
        ] {
            run(async move {
                let authority = Authority::new();
                let address = Wire::serve(move |mut wire, _| async move {
                    wire.try_exactly(read).await;
                    let _ = wire.send(answer.as_bytes()).await;
                    end.of(wire).await;
                })
                .await;
                let proxy = secure(&authority, address);
                let what = format!("{protocol:?} after {read}: {answer:?} {end:?}");
                assert_seen(&proxy, protocol, "POST", Status(status), end, &what).await;
                assert_flag(&proxy, 1, flag, &what).await;
                nothing_left(&proxy).await;
            });
        }
    }
}
