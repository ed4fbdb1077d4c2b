//! WebSocket, and any other switch of protocols, between HTTP/1.1, which upgrades a GET, and HTTP/2, which extends
//! CONNECT (RFC 6455, RFC 8441). Each side has its own handshake; the proxy answers for the side that lacks one.

use aws_lc_rs::digest;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use rand::{Rng, RngExt};

use super::attempts::Missed;
use super::client::Lease;
use crate::error::Flag;
use crate::rules::retry::Failure;

/// Turns the head of an HTTP/1.1 upgrade into an extended CONNECT. One that has no such form, because it has another
/// method, a body, or several protocols to choose from, goes out as if it asked for nothing: RFC 9110 §7.8 lets it.
pub async fn to_http2(
    request: &mut Request<()>,
    protocol: &HeaderValue,
    has_body: bool,
    lease: &Lease,
) -> Result<(), Missed> {
    let name = protocol.to_str().unwrap_or_default();
    if request.method() != Method::GET || has_body || name.is_empty() || name.contains([',', ' ']) {
        return Ok(());
    }
    if !lease.extended_connect().await {
        return Err(Missed::new(Failure::ConnectFailed, Flag::ProtocolError));
    }
    *request.method_mut() = Method::CONNECT;
    if is_websocket(name) {
        request.headers_mut().remove(SEC_WEBSOCKET_KEY);
        request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
    } else {
        request.extensions_mut().insert(Protocol::from(name));
    }
    Ok(())
}

/// Turns the head of an extended CONNECT into an HTTP/1.1 upgrade; WebSocket's with a key of the proxy's own.
pub fn to_http1(request: &mut Request<()>, protocol: &Protocol, rng: &mut impl Rng) {
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(protocol) = HeaderValue::from_str(protocol.as_str()) {
        headers.insert(UPGRADE, protocol);
    }
    if is_websocket(protocol.as_str()) {
        headers.insert(SEC_WEBSOCKET_KEY, text(&base64(&rng.random::<[u8; 16]>())));
    } else {
        // Without a key of ours there is nothing to check in the answer.
        headers.remove(SEC_WEBSOCKET_KEY);
    }
}

/// The answer for an HTTP/1.1 client whose upgrade was carried by HTTP/2: 200 becomes 101.
pub fn answer_http1<B>(response: &mut Response<B>, key: Option<&HeaderValue>, protocol: &HeaderValue) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol.clone());
    if let Some(key) = key
        && is_websocket(protocol.to_str().unwrap_or_default())
    {
        headers.insert(SEC_WEBSOCKET_ACCEPT, text(&accept(key.as_bytes())));
    }
}

/// The answer for an HTTP/2 client whose extended CONNECT was carried by HTTP/1.1: 101 becomes 200.
pub fn answer_http2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in ANSWERED_BY_101 {
        response.headers_mut().remove(name);
    }
}

/// Whether the origin's answer fits the key that the proxy sent.
pub fn accepts(key: &[u8], headers: &HeaderMap) -> bool {
    headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|value| value.as_bytes() == accept(key).as_bytes())
}

/// RFC 6455 §4.2.2: SHA-1 is what the handshake asks for; it proves understanding, not identity.
fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(context.finish().as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = group >> (18 - 6 * place) & 0x3f;
            let letter = ALPHABET.get(digit as usize).copied().unwrap_or(b'=');
            text.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

fn text(text: &str) -> HeaderValue {
    // Base64 is always a legal value.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn is_websocket(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case(WEBSOCKET)
}

const WEBSOCKET: &str = "websocket";
const ANSWERED_BY_101: [HeaderName; 3] = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_pads() {
        for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }
}
