//! Protocols are switched through the proxy, whichever way each side has for it: HTTP/1.1's `Upgrade` or HTTP/2's
//! extended CONNECT (RFC 8441). Afterwards every byte passes.

use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::ext::Protocol as Name;
use hyper_util::rt::TokioIo;
use spanmesh_tests::origin::{Body, empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Scripted, Wire, each, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The key and the answer to it of RFC 6455.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An origin that switches to `name` and echoes; `/refused` it refuses.
pub(super) async fn switching(protocol: Protocol, name: &'static str) -> Origin {
    Origin::start(protocol, move |mut request| async move {
        if request.uri().path() == "/refused" {
            return Response::builder().status(403).header("x-why", "not you").body(full("refused")).expect("answer");
        }
        let asked = match protocol {
            Protocol::Http1 => request.headers().get("upgrade").expect("upgrade").to_str().expect("text").to_owned(),
            Protocol::Http2 => request.extensions().get::<Name>().expect("extended CONNECT").as_str().to_owned(),
        };
        assert_eq!(asked, name);
        let mut answer = Response::builder().header("sec-websocket-protocol", "chat");
        if protocol == Protocol::Http1 {
            answer = answer.status(101).header("connection", "upgrade").header("upgrade", name);
            match request.headers().get("sec-websocket-key") {
                Some(key) => answer = answer.header("sec-websocket-accept", accept(key.to_str().expect("text"))),
                None => assert_ne!(name, "websocket"),
            }
        } else {
            assert!(!request.headers().contains_key("sec-websocket-key"));
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::task::spawn_local(async move {
            let mut io = TokioIo::new(upgrade.await.expect("a switch"));
            let mut bytes = [0; 4096];
            loop {
                match io.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => io.write_all(&bytes[..count]).await.expect("write"),
                }
            }
            let _ = io.shutdown().await;
        });
        answer.body(empty()).expect("answer")
    })
    .await
}

fn accept(key: &str) -> String {
    base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

/// FIPS 180-4, written here so that the proxy's own is checked against another.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut words: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().expect("four"))).collect();
        for at in 16..80 {
            words.push((words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]);
            text.push(if place <= three.len() { letter } else { '=' });
        }
    }
    text
}

pub(super) fn asking(client: &Client, path: &str, name: &'static str) -> Request<Body> {
    match client {
        Client::Http1(..) => {
            let request = client.request("GET", path).header("connection", "upgrade").header("upgrade", name);
            let request = if name == "websocket" { request.header("sec-websocket-key", KEY) } else { request };
            request.header("sec-websocket-version", "13").body(empty()).expect("request")
        }
        Client::Http2(..) => {
            let request = client.request("CONNECT", path).header("sec-websocket-version", "13");
            request.extension(Name::from_static(name)).body(empty()).expect("request")
        }
    }
}

/// hyper's HTTP/2 client refuses extended CONNECT until the server's settings have come; any answer follows them.
pub(super) async fn connected(protocol: Protocol, proxy: &Proxy) -> Client {
    let mut client = Client::connect(protocol, proxy.address("in")).await;
    let request = client.request("GET", "/refused").body(empty()).expect("request");
    assert_eq!(client.whole(request).await.status, StatusCode::FORBIDDEN);
    client
}

async fn switched(client: Protocol, upstream: Protocol, name: &'static str) {
    let origin = switching(upstream, name).await;
    let proxy = Proxy::between(origin.address, upstream);
    let mut client = connected(client, &proxy).await;
    let request = asking(&client, "/socket", name);
    let mut answer = client.send(request).await.expect("an answer");
    match client {
        Client::Http1(..) => {
            assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(answer.headers()["upgrade"], name);
            if name == "websocket" {
                assert_eq!(answer.headers()["sec-websocket-accept"], ACCEPT);
            }
        }
        Client::Http2(..) => {
            assert_eq!(answer.status(), StatusCode::OK);
            for gone in ["upgrade", "connection", "sec-websocket-accept"] {
                assert!(!answer.headers().contains_key(gone), "{gone}");
            }
        }
    }
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    let mut io = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("a switch"));
    for length in [1, 100, 50_000] {
        let sent = vec![b'x'; length];
        let mut back = vec![0; length];
        io.write_all(&sent).await.expect("write");
        io.read_exact(&mut back).await.expect("read");
        assert!(back == sent);
    }
    io.shutdown().await.expect("shutdown");
    let mut rest = Vec::new();
    let _ = io.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    drop(io);
    let line = proxy.logged(2).await.remove(1);
    assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&50_101.into(), &50_101.into()), "{line}");
}

#[test]
fn the_digest_of_this_test_is_right() {
    assert_eq!(accept(KEY), ACCEPT);
}

#[test]
fn websocket_passes_in_every_form() {
    each(|client, upstream| switched(client, upstream, "websocket"));
}

#[test]
fn any_other_protocol_passes_in_every_form() {
    each(|client, upstream| switched(client, upstream, "custom-tunnel"));
}

#[test]
fn a_refusal_is_an_ordinary_answer() {
    each(|client, upstream| async move {
        let origin = switching(upstream, "websocket").await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = connected(client, &proxy).await;
        for _ in 0..2 {
            let request = asking(&client, "/refused", "websocket");
            let answer = client.whole(request).await;
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::FORBIDDEN, &b"refused"[..]));
            assert_eq!(answer.headers["x-why"], "not you");
        }
        let lines = proxy.logged(3).await;
        assert!(lines.iter().all(|line| line["flag"] == "ok" && line["status"] == 403), "{lines:?}");
    });
}

#[test]
fn a_peer_without_extended_connect_is_refused_without_a_wait() {
    run(async {
        // h2's own server says in its settings that it does not offer it.
        let origin = Scripted::start(Protocol::Http2, |asked| asked.answer(200, "plain")).await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let since = Instant::now();
        for _ in 0..10 {
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            let request = asking(&client, "/socket", "websocket");
            assert_eq!(client.whole(request).await.status, StatusCode::BAD_GATEWAY);
        }
        // The wait for settings that do not come is half a second each time.
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        assert_eq!(origin.connections.get(), 1);
    });
}

#[test]
fn bytes_right_behind_the_heads_are_not_lost() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::between(address, Protocol::Http1);
        let mut client = Wire::connect(proxy.address("in")).await;
        // The client's first bytes come with its head, the origin's with its 101.
        client.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: custom\r\n\r\nearly").await;
        let mut origin = Wire::accept(&listener).await;
        let head = origin.head().await;
        assert!(head.contains("upgrade: custom\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        origin.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: custom\r\n\r\nbehind").await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(client.exactly(6).await, b"behind");
        assert_eq!(origin.exactly(5).await, b"early");
        client.finish().await;
        assert!(origin.rest().await.is_empty());
        origin.write("after the client's end").await;
        drop(origin);
        assert_eq!(client.rest().await, b"after the client's end");
    });
}

#[test]
fn early_bytes_of_a_refused_switch_are_no_second_request() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::between(address, Protocol::Http1);
        let mut client = Wire::connect(proxy.address("in")).await;
        client
            .write("GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: custom\r\n\r\n\u{1}\u{2}bytes")
            .await;
        let mut origin = Wire::accept(&listener).await;
        origin.head().await;
        origin.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 403 "));
        let rest = client.rest().await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&rest));
    });
}

#[test]
fn an_upgrade_that_has_no_other_form_is_an_ordinary_request() {
    run(async {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            assert_eq!(request.method(), "POST");
            let body = request.into_body().collect().await.expect("a whole body");
            Response::new(full(body.to_bytes()))
        })
        .await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let request = client.request("POST", "/").header("connection", "upgrade").header("upgrade", "custom");
        let answer = client.whole(request.body(full("with a body")).expect("request")).await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"with a body"[..]));
    });
}

/// RFC 9110 §15.2.2 and §7.8: a 101 names the protocol, and it is one that was offered.
#[test]
fn a_switch_to_what_nobody_asked_for_is_a_502() {
    for (named, status) in [
        ("", "502"),
        ("upgrade: other\r\n", "502"),
        ("upgrade: custom, other\r\n", "502"),
        ("upgrade: Custom\r\n", "101"),
    ] {
        run(async move {
            let address = Wire::serve(move |mut wire, _| async move {
                wire.head().await;
                wire.write(format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{named}\r\n")).await;
                wire.rest().await;
            })
            .await;
            let proxy = Proxy::between(address, Protocol::Http1);
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: custom, spare\r\n\r\n").await;
            let head = client.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{named:?}: {head}");
        });
    }
}
