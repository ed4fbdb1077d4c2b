//! The good client of an origin that is fuzzed: three requests, the first of which the origin answers as it likes.

use bytes::Bytes;
use http::{Method, Request};
use tokio::io::DuplexStream;
use tokio::time::{Duration, timeout};

use super::memory::Manner;
use super::seen;

/// The three over HTTP/1.1; which kind the first is, the input chooses.
pub fn requests(manner: Manner) -> &'static [u8] {
    match manner.choice() >> 1 {
        0 => b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nPOST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nhost: a\r\n\r\n",
        1 => b"HEAD /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3 HTTP/1.1\r\nhost: a\r\n\r\n",
        2 => b"POST /early HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
        _ => b"GET /1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nte: trailers\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
    }
}

/// The three over HTTP/2, the first two at once. Reads all answers; what they are, the client's engine judges.
pub async fn http2(io: DuplexStream) -> Vec<u8> {
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(usize::MAX);
    let Ok((send, connection)) = builder.handshake(io).await else { return Vec::new() };
    let carrying = tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            judge(&error);
        }
    });
    let mut asked = Vec::new();
    for (method, path) in [(Method::GET, "/1"), (Method::POST, "/2"), (Method::HEAD, "/3")] {
        asked.push(tokio::task::spawn_local(timeout(PATIENCE, ask(send.clone(), method, path))));
    }
    drop(send);
    for asked in asked {
        let ended = asked.await;
        seen::mark(ended.is_ok_and(|ended| ended.is_ok()));
    }
    carrying.abort();
    let _ = carrying.await;
    Vec::new()
}

async fn ask(send: h2::client::SendRequest<Bytes>, method: Method, path: &str) -> Result<(), h2::Error> {
    let mut send = send.ready().await?;
    let has_body = method == Method::POST;
    let uri = format!("http://a{path}");
    let request = Request::builder().method(method).uri(uri).body(()).expect("a request of ours");
    let (answer, mut stream) = send.send_request(request, !has_body)?;
    if has_body {
        stream.send_data(Bytes::from_static(b"hi"), true)?;
    }
    let answer = answer.await.inspect_err(judge)?;
    seen::mark(answer.status().as_u16());
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let data = data.inspect_err(judge)?;
        body.flow_control().release_capacity(data.len())?;
    }
    body.trailers().await.inspect_err(judge)?;
    Ok(())
}

/// What this side finds wrong, the proxy did.
fn judge(error: &h2::Error) {
    if error.is_library() && !error.is_io() && error.reason() != Some(h2::Reason::NO_ERROR) {
        seen::wrong(format!("the client's HTTP/2 said: {error}"));
    }
}

/// Longer than any limit of idleness.
const PATIENCE: Duration = Duration::from_secs(60);
