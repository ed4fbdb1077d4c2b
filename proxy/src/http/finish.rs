//! The last step of a request: its answer is cleaned and handed to the client's connection, a switch of protocols
//! becomes a tunnel, and what failed is answered from the table.

use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use super::answer;
use super::attempts::{Answered, Refused};
use super::body::ResponseBody;
use super::grpc;
use super::headers::{self, Head, Leftover, Trailers, Upgrade};
use super::serve::Reset;
use super::websocket;
use crate::connection::Connection;
use crate::error::Flag;
use crate::exchange::Open;
use crate::trail;
use crate::tunnel;

/// The client's half of a possible upgrade. It must leave the request before the head is used for anything else.
pub fn take_upgrade(parts: &mut Parts) -> Option<OnUpgrade> {
    parts.extensions.remove::<OnUpgrade>()
}

pub fn refused(
    open: Open,
    method: &Method,
    flag: Flag,
    connection: &Connection,
) -> Result<Response<ResponseBody>, Reset> {
    let mut response = answer::refuse(open, method, flag);
    // After a request that can be read in two ways, nothing that follows on this connection can be trusted; and whoever
    // sends too many ahead would go on.
    if matches!(flag, Flag::BadRequest | Flag::RateLimited) {
        close(&mut response, connection);
    }
    last(&mut response, connection);
    Ok(response)
}

pub fn redirected(open: Open, location: &str, connection: &Connection) -> Result<Response<ResponseBody>, Reset> {
    match answer::redirect(open, location) {
        Some(mut response) => {
            last(&mut response, connection);
            Ok(response)
        }
        None => Err(h2::Reason::INTERNAL_ERROR.into()),
    }
}

/// No attempt was answered. An HTTP/2 client sees the upstream's own reset; others get an answer from the table.
pub fn failed(
    open: Open,
    connection: &Connection,
    head: &Head,
    refused: Refused,
) -> Result<Response<ResponseBody>, Reset> {
    if let (Some(reason), Version::HTTP_2) = (refused.reason, head.version) {
        open.fail(refused.flag);
        return Err(reason.into());
    }
    if refused.flag == Flag::ClientReset {
        open.fail(Flag::ClientReset);
        return Err(h2::Reason::CANCEL.into());
    }
    self::refused(open, &head.method, refused.flag, connection)
}

pub fn answered(
    open: Open,
    connection: &Rc<Connection>,
    head: &Head,
    answered: Answered,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<ResponseBody>, Reset> {
    let Answered { response, mut lease, gate, key } = answered;
    let (mut parts, body) = response.into_parts();
    open.exchange().heard(&parts.headers);
    let switched = match (&head.upgrade, lease.version()) {
        (Upgrade::No, _) => false,
        // Asked of a proxy behind.
        (Upgrade::Tunnel(_), _) => parts.status.is_success(),
        // hyper switches at the 200 of an extended CONNECT; what went out as an ordinary request stays one.
        (_, Version::HTTP_2) => parts.extensions.get::<OnUpgrade>().is_some(),
        _ => parts.status == StatusCode::SWITCHING_PROTOCOLS,
    };
    let told = parts.headers.get(UPGRADE).cloned();
    if switched && lease.version() != Version::HTTP_2 && !is_asked_for(&head.upgrade, &parts.headers) {
        return refused(open, &head.method, Flag::ProtocolError, connection);
    }
    match headers::clean_answer(parts.status, &mut parts.headers) {
        Ok(Leftover::None) => {}
        Ok(Leftover::Possible) => lease.is_last(),
        Err(flag) => return refused(open, &head.method, flag, connection),
    }
    if !switched {
        // 101 to a client that did not ask would leave it waiting for another protocol.
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return refused(open, &head.method, Flag::ProtocolError, connection);
        }
        open.exchange().answered(parts.status, None);
        trail::tell(open.exchange(), &mut parts.headers, false);
        if open.exchange().is_grpc()
            && let Some(status) = grpc::status(&parts.headers)
        {
            open.exchange().grpc_status(status);
        }
        parts.version = Version::HTTP_11;
        let taken = match head.version {
            Version::HTTP_2 => Trailers::All,
            _ if head.takes_trailers => Trailers::announced(&parts.headers),
            _ => Trailers::None,
        };
        // HTTP/2 may announce trailers behind a body of known length; HTTP/1.1 has room for them only behind chunks.
        if matches!(taken, Trailers::Named(_)) && lease.version() == Version::HTTP_2 && !body.is_end_stream() {
            parts.headers.remove(CONTENT_LENGTH);
        }
        let unsent = head.version != Version::HTTP_2 && tells_length_only(&parts, &body);
        let mut body = ResponseBody::stream(body, open, lease, gate, taken);
        if unsent {
            body = body.unsent();
        }
        let mut response = Response::from_parts(parts, body);
        last(&mut response, connection);
        return Ok(response);
    }
    let theirs = parts.extensions.remove::<OnUpgrade>();
    let mut response = Response::from_parts(parts, ResponseBody::none());
    *response.version_mut() = Version::HTTP_11;
    match (&head.upgrade, lease.version()) {
        (Upgrade::Http1(protocol), Version::HTTP_2) => {
            websocket::answer_http1(&mut response, head.headers.get(SEC_WEBSOCKET_KEY), protocol);
        }
        (Upgrade::Http1(protocol), _) => {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, told.unwrap_or_else(|| protocol.clone()));
        }
        // RFC 9110 §9.3.6: a length here has no meaning.
        (Upgrade::Tunnel(_), _) => drop(response.headers_mut().remove(CONTENT_LENGTH)),
        (Upgrade::Extended(_), Version::HTTP_2) => {}
        _ => {
            if !key.is_none_or(|key| websocket::accepts(key.as_bytes(), response.headers())) {
                return refused(open, &head.method, Flag::ProtocolError, connection);
            }
            websocket::answer_http2(&mut response);
        }
    }
    let (Some(ours), Some(theirs)) = (upgrade, theirs) else {
        return refused(open, &head.method, Flag::ProtocolError, connection);
    };
    open.exchange().answered(response.status(), None);
    connection.switched();
    tunnel::upgraded(open, connection, lease, ours, theirs);
    Ok(response)
}

/// RFC 9110 §15.2.2 and §7.8: a 101 names the protocol, and none that was not offered.
fn is_asked_for(upgrade: &Upgrade, answer: &HeaderMap) -> bool {
    let offered = match upgrade {
        Upgrade::No | Upgrade::Tunnel(_) => return true,
        Upgrade::Http1(protocols) => protocols.to_str().unwrap_or_default(),
        Upgrade::Extended(protocol) => protocol.as_str(),
    };
    let names = |value: &str| value.split(',').map(|name| name.trim().to_ascii_lowercase()).collect::<Vec<_>>();
    let offered = names(offered);
    let chosen = answer.get_all(UPGRADE).iter().map(|value| value.to_str().map(names));
    let chosen: Result<Vec<_>, _> = chosen.collect();
    chosen.is_ok_and(|chosen| !chosen.is_empty() && chosen.iter().flatten().all(|name| offered.contains(name)))
}

/// Whether this is a 304 that tells how long its body would be.
fn tells_length_only(parts: &http::response::Parts, body: &Incoming) -> bool {
    parts.status == StatusCode::NOT_MODIFIED
        && body.is_end_stream()
        && parts.headers.get_all(CONTENT_LENGTH).iter().count() == 1
        && parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().iter().all(u8::is_ascii_digit))
}

/// While the proxy drains, each answer is the last on its HTTP/1 connection. So is one that came before the body was asked
/// for: the client may send it or not, and is told that nobody will read it (RFC 9110 §10.1.1). A 417 ends its connection
/// without a word, since it asks the client to come again, and curl does not come where it hears of a close.
fn last(response: &mut Response<ResponseBody>, connection: &Connection) {
    let withheld = connection.is_withheld() && response.status() != StatusCode::EXPECTATION_FAILED;
    if connection.worker.drain.is_draining() || withheld {
        close(response, connection);
    }
}

fn close(response: &mut Response<ResponseBody>, connection: &Connection) {
    if !connection.http2.get() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
