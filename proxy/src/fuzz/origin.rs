//! The application behind a proxy in memory. It writes down each request that reaches it, takes nothing but canonical
//! messages, and answers as the request's path says.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::seen;
use super::strict::{self, Head, Read};

/// A request whose head has come.
#[derive(Clone, Debug)]
pub struct Got {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
    /// Its last byte has come.
    pub whole: bool,
}

/// All requests, in the order in which they came.
pub type Book = Rc<RefCell<Vec<Got>>>;

/// Path of a target: what a query or a fragment follows.
pub fn path(target: &[u8]) -> &[u8] {
    target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub async fn http1(mut io: DuplexStream, book: Book) {
    let mut bytes = Vec::new();
    let mut current = None;
    loop {
        loop {
            let read = match strict::request(&bytes) {
                Ok(read) => read,
                Err(wrong) => return seen::wrong(format!("the origin got {wrong}")),
            };
            let (head, body) = match read {
                Read::Nothing => break,
                Read::Part(head) => (head, None),
                Read::Whole(head, body, used) => {
                    bytes.drain(..used);
                    (head, Some(body))
                }
            };
            let told = path(head.target()).to_vec();
            let early = told.starts_with(b"/early");
            let place = match current {
                Some(place) => place,
                None => {
                    book.borrow_mut().push(Got {
                        method: text(head.method()),
                        path: text(&told),
                        body: Vec::new(),
                        whole: false,
                    });
                    current = Some(book.borrow().len() - 1);
                    let expects = body.is_none() && !head.values(b"expect").is_empty();
                    let first = match (expects, early) {
                        (_, true) => answer(&head),
                        (true, _) => b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
                        _ => Vec::new(),
                    };
                    if io.write_all(&first).await.is_err() {
                        return;
                    }
                    book.borrow().len() - 1
                }
            };
            let Some(body) = body else { break };
            if let Some(got) = book.borrow_mut().get_mut(place) {
                (got.body, got.whole) = (body, true);
            }
            current = None;
            if told.starts_with(b"/reset") {
                return;
            }
            if !early && io.write_all(&answer(&head)).await.is_err() || told.starts_with(b"/close") {
                return;
            }
        }
        match io.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn answer(head: &Head) -> Vec<u8> {
    let told = path(head.target());
    let is_head = head.method() == b"HEAD";
    let text = |text: &str| text.as_bytes().to_vec();
    match told.get(..4).unwrap_or(told) {
        b"/sil" => Vec::new(),
        b"/204" => text("HTTP/1.1 204 No Content\r\n\r\n"),
        b"/304" => text("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"),
        b"/100" => text("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        b"/chu" if !is_head => {
            text("HTTP/1.1 200 OK\r\ntrailer: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n")
        }
        b"/unt" if !is_head => text("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end"),
        b"/big" if !is_head => [text("HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n"), vec![b'b'; 70_000]].concat(),
        _ => {
            let mut all = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", told.len()).into_bytes();
            all.extend_from_slice(if is_head { b"" } else { told });
            all
        }
    }
}

pub async fn http2(io: DuplexStream, book: Book) {
    // A burst of small frames is the client's doing, and this origin does not mind.
    let mut builder = h2::server::Builder::new();
    builder.data_frame_budget(usize::MAX);
    let mut connection = match builder.handshake(io).await {
        Ok(connection) => connection,
        Err(error) => return judge(&error),
    };
    while let Some(accepted) = connection.accept().await {
        match accepted {
            Ok((request, respond)) => {
                tokio::task::spawn_local(exchange(request, respond, book.clone()));
            }
            Err(error) => return judge(&error),
        }
    }
}

/// What this side found wrong is the proxy's fault; that the proxy goes away is nobody's.
fn judge(error: &h2::Error) {
    if error.is_library() && !error.is_io() && error.reason() != Some(h2::Reason::NO_ERROR) {
        seen::wrong(format!("the origin's HTTP/2 said: {error}"));
    }
}

async fn exchange(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, book: Book) {
    let (parts, mut body) = request.into_parts();
    check(&parts.headers);
    let told = parts.uri.path().as_bytes().to_vec();
    let length = parts.headers.get("content-length").cloned();
    let method = parts.method.as_str().into();
    book.borrow_mut().push(Got { method, path: text(&told), body: Vec::new(), whole: false });
    let place = book.borrow().len() - 1;
    if told.starts_with(b"/early") {
        reply(&mut respond, &told);
    }
    while let Some(data) = body.data().await {
        let data = match data {
            Ok(data) => data,
            Err(error) => return judge(&error),
        };
        let _ = body.flow_control().release_capacity(data.len());
        if let Some(got) = book.borrow_mut().get_mut(place) {
            got.body.extend_from_slice(&data);
        }
    }
    match body.trailers().await {
        Ok(trailers) => check(&trailers.unwrap_or_default()),
        Err(error) => return judge(&error),
    }
    if let Some(got) = book.borrow_mut().get_mut(place) {
        got.whole = true;
        if length
            .is_some_and(|length| length.to_str().ok().and_then(|length| length.parse().ok()) != Some(got.body.len()))
        {
            seen::wrong("the origin got a body of another length than its head says");
        }
    }
    match told.get(..4).unwrap_or(&told) {
        b"/ear" => {}
        b"/sil" => poll_fn(|cx| respond.poll_reset(cx)).await.map(drop).unwrap_or_default(),
        b"/res" => respond.send_reset(h2::Reason::REFUSED_STREAM),
        b"/clo" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        _ => reply(&mut respond, &told),
    }
}

fn reply(respond: &mut h2::server::SendResponse<Bytes>, told: &[u8]) {
    let mut response = Response::new(());
    let body = match told.get(..4).unwrap_or(told) {
        b"/204" => Bytes::new(),
        b"/big" => Bytes::from(vec![b'b'; 40_000]),
        _ => Bytes::copy_from_slice(told),
    };
    if told.starts_with(b"/204") {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    // The client may have gone in between.
    let Ok(mut stream) = respond.send_response(response, body.is_empty()) else { return };
    if body.is_empty() {
        return;
    }
    if told.starts_with(b"/chu") {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        let _ = stream.send_data(body, false).and_then(|()| stream.send_trailers(trailers));
    } else {
        let _ = stream.send_data(body, true);
    }
}

/// RFC 9113 §8.2.2: nothing of one HTTP/1.1 connection stands in a head of HTTP/2.
fn check(headers: &HeaderMap) {
    for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"] {
        if headers.contains_key(name) {
            seen::wrong(format!("the origin got {name} over HTTP/2"));
        }
    }
    if headers.get_all("te").iter().any(|value| value != "trailers")
        || headers.get_all("content-length").iter().count() > 1
    {
        seen::wrong(format!("the origin got {headers:?} over HTTP/2"));
    }
}
