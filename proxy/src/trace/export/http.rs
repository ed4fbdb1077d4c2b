//! OTLP and Zipkin over HTTP/1.1: one request at a time on a connection that is made anew every 5 to 10 minutes. Redirects are not
//! followed. What an answer means for the spans is `retry`'s.

use std::io::Write;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::answer::{self, Taken};
use super::dial::{Dial, Fields};
use super::parcel::{Envelope, Format, Parcel};
use super::retry::{self, Failure};

pub struct Http {
    pub dial: Dial,
    pub path: Uri,
    pub fields: Fields,
    pub gzip: bool,
    pub connection: Option<Connection>,
}

pub struct Connection {
    send: http1::SendRequest<Full<Bytes>>,
    until: Instant,
    used: bool,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Http {
    pub async fn send(&mut self, parcel: &Parcel, envelope: &Envelope) -> Result<Taken, Failure> {
        let body = envelope.wrap(parcel);
        let body = if self.gzip { gzip(&body) } else { body };
        loop {
            let mut connection = self.connected().await?;
            let was_used = connection.used;
            connection.used = true;
            let request = self.request(body.clone(), envelope.format());
            match exchange(&mut connection, request, envelope.format()).await {
                // The receiver may have closed an idle connection just before: that is no failure of its.
                Err(Failure::Lost(_)) if was_used => {}
                outcome => {
                    if !matches!(outcome, Err(Failure::Lost(_))) {
                        self.connection = Some(connection);
                    }
                    return outcome;
                }
            }
        }
    }

    async fn connected(&mut self) -> Result<Connection, Failure> {
        if let Some(mut connection) = self.connection.take()
            && Instant::now() < connection.until
            && connection.send.ready().await.is_ok()
        {
            return Ok(connection);
        }
        let io = TokioIo::new(self.dial.connect().await?);
        let (send, connection) = http1::handshake(io).await.map_err(lost)?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection for spans ended");
            }
        });
        let until = Instant::now() + retry::lifetime(self.dial.renew, &mut rand::rng());
        Ok(Connection { send, until, used: false, task: task.abort_handle() })
    }

    fn request(&mut self, body: Bytes, format: Format) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&self.dial.endpoint.address.to_string()) {
            headers.insert(HOST, host);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.fields.write(headers, Instant::now());
        headers.entry(USER_AGENT).or_insert(AGENT);
        request
    }
}

async fn exchange(connection: &mut Connection, request: Request<Full<Bytes>>, asked: Format) -> Result<Taken, Failure> {
    let response = connection.send.send_request(request).await.map_err(lost)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| match error.downcast() {
        Ok(error) => lost(*error),
        Err(_) => Failure::Garbled(format!("answers with more than {LONGEST_ANSWER} bytes")),
    })?;
    read(&head, &body.to_bytes(), asked)
}

fn read(head: &http::response::Parts, body: &[u8], asked: Format) -> Result<Taken, Failure> {
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let kind = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A receiver answers as it was asked, or says that it does not.
    let format = match kind.as_str() {
        "application/x-protobuf" | "application/protobuf" => Some(Format::Protobuf),
        "application/json" => Some(Format::Json),
        "" => Some(asked),
        _ => None,
    };
    if head.status.is_success() && asked == Format::Zipkin {
        return Ok(Taken::default());
    }
    if head.status.is_success() {
        let taken = match format {
            // `ExportTraceServiceResponse` without a field has no byte.
            _ if body.is_empty() => Some(Taken::default()),
            Some(Format::Protobuf) => answer::protobuf(body),
            Some(Format::Json) => answer::json(body),
            Some(Format::Zipkin) | None => None,
        };
        return taken.ok_or_else(|| {
            let (kind, text) = (answer::shown(kind.as_bytes()), error_text(format, &kind, body));
            let says = if text.is_empty() { String::new() } else { format!(" and says `{text}`") };
            Failure::Garbled(format!("answers {} with `{kind}` that is not OTLP's{says}", head.status))
        });
    }
    let text = match head.status.is_redirection() {
        true => format!("to {}", answer::shown(text(LOCATION).as_bytes())),
        false => error_text(format, &kind, body),
    };
    let wait = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = wait.and_then(|value| retry::retry_after(value, SystemTime::now()));
    Err(Failure::Http { status: head.status.as_u16(), wait, text })
}

/// Without a content type nothing is known of the body but that it may be text.
fn error_text(format: Option<Format>, kind: &str, body: &[u8]) -> String {
    answer::error_text(!kind.is_empty() && format == Some(Format::Protobuf), body)
}

fn lost(error: hyper::Error) -> Failure {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::Lost(format!("{error}{cause}"))
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default().into()
}

pub const AGENT: HeaderValue = HeaderValue::from_static(concat!("spanmesh-proxy/", env!("CARGO_PKG_VERSION")));
/// As the OTLP specification recommends.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<Taken, Failure> {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        read(&response.body(()).unwrap().into_parts().0, body, Format::Protobuf)
    }

    #[test]
    fn a_yes_must_be_in_the_words_of_otlp() {
        let protobuf = [("content-type", "application/x-protobuf")];
        let json = [("content-type", "application/json; charset=utf-8")];
        let html = [("content-type", "text/html")];
        assert_eq!(answered(200, &protobuf, b""), Ok(Taken::default()));
        assert_eq!(answered(200, &[], b""), Ok(Taken::default()));
        assert_eq!(answered(202, &json, b"{}"), Ok(Taken::default()));
        assert_eq!(answered(200, &protobuf, b"\x0a\x02\x08\x03").map(|taken| taken.rejected), Ok(3));
        for (headers, body) in [(&html, &b"<html>"[..]), (&protobuf, b"<html>"), (&json, b"oops")] {
            assert!(matches!(answered(200, headers, body), Err(Failure::Garbled(_))), "{headers:?}");
        }
        let says = |headers, body| match answered(200, headers, body) {
            Err(Failure::Garbled(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(says(&json, br#"{"code":13,"message":"no\nroom"}"#).ends_with(" and says `no room`"));
        assert!(says(&protobuf, b"\x08\x0d\x12\x03bad").ends_with(" and says `bad`"));
    }

    #[test]
    fn a_no_says_what_there_is_to_know() {
        let failure = |status, wait: Option<u64>, text: &str| {
            Err(Failure::Http { status, wait: wait.map(std::time::Duration::from_secs), text: text.into() })
        };
        assert_eq!(answered(503, &[("retry-after", "7")], b"busy"), failure(503, Some(7), "busy"));
        assert_eq!(answered(301, &[("location", "http://b/")], b""), failure(301, None, "to http://b/"));
        let protobuf = [("content-type", "application/x-protobuf")];
        assert_eq!(answered(400, &protobuf, b"\x08\x03\x12\x03bad"), failure(400, None, "bad"));
    }

    #[test]
    fn what_is_compressed_is_read_back() {
        let body = b"spans ".repeat(1000);
        let packed = gzip(&body);
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut back).unwrap();
        assert!(back == body && packed.len() < body.len() / 10);
    }
}
