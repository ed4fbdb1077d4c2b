//! A client may vanish at any point. What it began is never finished in its name: an origin sees half a body as half a
//! body, a tunnel's other end sees the kind of end that this one had, and nothing stays open for it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use rustls::version::TLS13;
use spanmesh_tests::certificates::connect;
use spanmesh_tests::streams::{read_http1, read_http2, reset_at_close};
use spanmesh_tests::{Authority, Dir, Protocol, Proxy, Wire, by_hand, eventually, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An origin that notes of each request whether its body came whole.
async fn noting(protocol: Protocol) -> (SocketAddr, Rc<RefCell<Vec<bool>>>) {
    let noted = Rc::new(RefCell::new(Vec::new()));
    let notes = noted.clone();
    let address = Wire::serve(move |mut wire, _| {
        let notes = notes.clone();
        async move {
            if protocol == Protocol::Http1 {
                let whole = read_http1(&mut wire).await.is_some();
                return notes.borrow_mut().push(whole);
            }
            let Ok(mut connection) = h2::server::handshake(wire.stream).await else { return };
            while let Some(Ok((request, reply))) = connection.accept().await {
                let notes = notes.clone();
                tokio::task::spawn_local(async move {
                    let whole = read_http2(request.into_body()).await.is_some();
                    notes.borrow_mut().push(whole);
                    drop(reply);
                });
            }
        }
    })
    .await;
    (address, noted)
}

fn proxy(address: SocketAddr, upstream: Protocol) -> Proxy {
    Proxy::routed(&[address], upstream, "idleTimeout: 300ms, http2IdleTimeout: 300ms", "", "")
}

async fn nothing_left(proxy: &Proxy) {
    proxy.at_rest().await;
    let open = || proxy.metric("spanmesh_proxy_upstream_connections_active", &[]);
    eventually("no connection to the origin is left", || open() == 0.0).await;
}

#[test]
fn half_an_upload_is_half_an_upload_to_the_origin_too() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        for reset in [true, false] {
            run(async move {
                let (address, noted) = noting(upstream).await;
                let proxy = proxy(address, upstream);
                let halves = [
                    "content-length: 10\r\n\r\n",
                    "content-length: 10\r\n\r\nhalf",
                    "transfer-encoding: chunked\r\n\r\n",
                    "transfer-encoding: chunked\r\n\r\na\r\nhalf",
                    "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                    "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
                ];
                for (number, half) in halves.into_iter().enumerate() {
                    let mut wire = Wire::connect(proxy.address("in")).await;
                    wire.write(format!("POST / HTTP/1.1\r\nhost: a\r\n{half}")).await;
                    in_flight(&proxy).await;
                    if reset {
                        wire.reset();
                    } else {
                        drop(wire);
                    }
                    eventually("the origin saw it end", || noted.borrow().len() > number).await;
                    proxy.at_rest().await;
                }
                // Over HTTP/2: the stream is reset, or the connection ends.
                let mut sender = by_hand::connect(proxy.address("in")).await;
                let request = Request::post("http://a/").body(()).expect("request");
                let (answer, mut body) = sender.send_request(request, false).expect("send");
                body.send_data(Bytes::from_static(b"half"), false).expect("data");
                in_flight(&proxy).await;
                if reset {
                    body.send_reset(h2::Reason::CANCEL);
                }
                drop((answer, body, sender));
                let all = halves.len() + 1;
                eventually("the origin saw them all end", || noted.borrow().len() >= all).await;
                assert_eq!(*noted.borrow(), vec![false; all], "{upstream:?} reset: {reset}");
                for line in proxy.logged(all).await {
                    assert_eq!(line["flag"], "client_reset", "{line}");
                }
                nothing_left(&proxy).await;
            });
        }
    }
}

async fn in_flight(proxy: &Proxy) {
    let now = || proxy.metric("spanmesh_proxy_upstream_requests_in_flight", &[]);
    eventually("it is under way", || now() >= 1.0).await;
}

/// Under TLS too an end that was not announced is none: anyone on the way can close a TCP connection.
#[test]
fn half_an_upload_under_tls_is_half_an_upload() {
    for (alpn, upstream) in [("http/1.1", Protocol::Http1), ("http/1.1", Protocol::Http2)] {
        run(async move {
            let (address, noted) = noting(upstream).await;
            let (authority, proxy) = edge(address, upstream);
            let connector = authority.client(&[alpn], &[&TLS13]);
            let mut stream = connect(&connector, "a.example", proxy.address("edge")).await.expect("a handshake");
            let request = "POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
            stream.write_all(request.as_bytes()).await.expect("write");
            stream.flush().await.expect("flush");
            in_flight(&proxy).await;
            drop(stream);
            eventually("the origin saw it end", || noted.borrow().len() == 1).await;
            assert_eq!(*noted.borrow(), [false]);
            assert_eq!(proxy.logged(1).await[0]["flag"], "client_reset");
            nothing_left(&proxy).await;
        });
    }
}

fn edge(address: SocketAddr, upstream: Protocol) -> (Authority, Proxy) {
    let (authority, dir) = (Authority::new(), Dir::new());
    authority.leaf(&["a.example"]).write(&dir, "a");
    let proxy = Proxy::start_in(
        dir,
        &format!(
            "limits: {{headerTimeout: 2s}}\n\
             listeners:\n- name: edge\n  mode: gateway\n  address: '127.0.0.1:0'\n  upstream: app\n  \
             tls: {{certificates: [{{cert: DIR/a.crt, key: DIR/a.key}}]}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}'], protocol: {}, idleTimeout: 300ms, \
             http2IdleTimeout: 300ms}}\n",
            upstream.word()
        ),
    );
    (authority, proxy)
}

#[test]
fn a_client_that_leaves_at_any_byte_of_its_handshake_leaves_nothing() {
    run(async {
        let (address, _) = noting(Protocol::Http1).await;
        let (authority, proxy) = edge(address, Protocol::Http1);
        let hello = client_hello(&authority).await;
        for reset in [true, false] {
            for end in [0, 1, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()] {
                let mut wire = Wire::connect(proxy.address("edge")).await;
                wire.write(&hello[..end]).await;
                if reset {
                    wire.reset();
                }
            }
        }
        // Behind its handshake, without a request.
        for alpn in ["h2", "http/1.1"] {
            let connector = authority.client(&[alpn], &[&TLS13]);
            drop(connect(&connector, "a.example", proxy.address("edge")).await.expect("a handshake"));
        }
        nothing_left(&proxy).await;
        let ended = proxy.metric("spanmesh_proxy_connections_closed_total", &[]);
        assert_eq!(ended, 16.0);
    });
}

/// What a client says first.
async fn client_hello(authority: &Authority) -> Vec<u8> {
    let (listener, address) = Wire::listen().await;
    let connector = authority.client(&["http/1.1"], &[&TLS13]);
    let client = tokio::task::spawn_local(async move { drop(connect(&connector, "a.example", address).await) });
    let mut wire = Wire::accept(&listener).await;
    let head = wire.exactly(5).await;
    let body = wire.exactly(usize::from(u16::from_be_bytes([head[3], head[4]]))).await;
    client.abort();
    [head, body].concat()
}

/// An origin that answers an upgrade, says a word, and then tells how the client's end looked from there: whether what
/// came was an end or an error.
async fn switching(answers: bool) -> (SocketAddr, Rc<Cell<Option<bool>>>) {
    let saw = Rc::new(Cell::new(None));
    let seen = saw.clone();
    let address = Wire::serve(move |mut wire, _| {
        let seen = seen.clone();
        async move {
            wire.try_until("\r\n\r\n").await;
            if answers {
                wire.write("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello").await;
            }
            let mut rest = Vec::new();
            seen.set(Some(wire.stream.read_to_end(&mut rest).await.is_ok()));
        }
    })
    .await;
    (address, saw)
}

#[test]
fn a_client_that_leaves_during_a_switch_of_protocols_or_after_it_takes_the_origin_with_it() {
    for answers in [false, true] {
        for reset in [false, true] {
            run(async move {
                let (address, saw) = switching(answers).await;
                let proxy = proxy(address, Protocol::Http1);
                let mut wire = Wire::connect(proxy.address("in")).await;
                wire.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
                if answers {
                    wire.until("hello").await;
                    wire.write("half a mess").await;
                } else {
                    in_flight(&proxy).await;
                }
                if reset {
                    wire.reset();
                } else {
                    drop(wire);
                }
                eventually("the origin is told", || saw.get().is_some()).await;
                let line = proxy.logged(1).await.remove(0);
                // A quiet end behind the switch is an end; everything else is a client that broke off.
                let flag = if answers && !reset { "ok" } else { "client_reset" };
                assert_eq!(line["flag"], flag, "answers: {answers} reset: {reset}: {line}");
                nothing_left(&proxy).await;
            });
        }
    }
}

#[test]
fn a_client_that_leaves_its_tunnel_takes_the_origin_with_it_in_its_own_way() {
    for bytes in ["", "some bytes"] {
        for reset in [false, true] {
            run(async move {
                let quiet = Rc::new(Cell::new(None));
                let (seen, begun) = (quiet.clone(), Rc::new(Cell::new(false)));
                let came = begun.clone();
                let address = Wire::serve(move |mut wire, _| {
                    came.set(true);
                    let seen = seen.clone();
                    async move {
                        let mut rest = Vec::new();
                        seen.set(Some(wire.stream.read_to_end(&mut rest).await.is_ok()));
                    }
                })
                .await;
                let proxy = Proxy::start(&format!(
                    "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: opaque}}\n\
                     upstreams:\n- {{name: app, addresses: ['{address}']}}\n"
                ));
                let mut stream = TcpStream::connect(proxy.address("in")).await.expect("connect");
                stream.write_all(bytes.as_bytes()).await.expect("write");
                eventually("the origin is reached", || begun.get()).await;
                // Not in the middle of the proxy's own connect: what came is on its way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                if reset {
                    reset_at_close(&stream);
                }
                drop(stream);
                eventually("the origin is told", || quiet.get().is_some()).await;
                assert_eq!(quiet.get(), Some(!reset), "{bytes:?} reset: {reset}");
                let line = proxy.logged(1).await.remove(0);
                assert_eq!(line["flag"], if reset { "client_reset" } else { "ok" }, "{line}");
                nothing_left(&proxy).await;
            });
        }
    }
}

/// One that leaves while its tunnel is not there yet.
#[test]
fn a_client_that_leaves_while_its_origin_is_being_reached_leaves_nothing() {
    run(async {
        let hole = spanmesh_tests::streams::BlackHole::new().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n\
             - {{name: http, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: http}}\n\
             - {{name: tcp, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: opaque}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], connectTimeout: 1s}}\n",
            hole.address
        ));
        for (listener, bytes) in [("http", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"), ("tcp", "bytes"), ("tcp", "")] {
            for reset in [true, false] {
                let mut wire = Wire::connect(proxy.address(listener)).await;
                wire.write(bytes).await;
                let open = || proxy.metric("spanmesh_proxy_upstream_connections_active", &[]);
                eventually("it is being reached", || open() >= 1.0).await;
                if reset {
                    wire.reset();
                }
            }
        }
        nothing_left(&proxy).await;
    });
}
