//! Answers that the proxy makes itself, all from the table in `error`.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::ResponseBody;
use super::grpc;
use crate::error::Flag;
use crate::exchange::Open;
use crate::trail;

/// Refuses a request. A gRPC client gets HTTP 200 with a grpc-status; others get the status and one line that names
/// the flag, the likely cause and the trace, so that whoever reads it can find it again.
pub fn refuse(open: Open, method: &Method, flag: Flag) -> Response<ResponseBody> {
    trail::name(open.exchange());
    let mut told = HeaderMap::new();
    trail::tell(open.exchange(), &mut told, true);
    let mut response = refusal(open, method, flag);
    response.headers_mut().extend(told);
    response
}

fn refusal(open: Open, method: &Method, flag: Flag) -> Response<ResponseBody> {
    let exchange = open.exchange();
    if exchange.is_grpc() {
        exchange.grpc_status(flag.meaning().grpc as u32);
        exchange.answered(StatusCode::OK, Some(flag));
        return grpc::refusal(flag, ResponseBody::own(Bytes::new(), open));
    }
    let status = flag.status();
    exchange.answered(status, Some(flag));
    let text = match exchange.trace() {
        Some((context, _)) => format!("{}: {} (trace {})\n", flag.name(), flag.meaning().text, context.trace),
        None => format!("{}: {}\n", flag.name(), flag.meaning().text),
    };
    let bytes = if *method == Method::HEAD { Bytes::new() } else { Bytes::from(text) };
    let mut response = Response::new(ResponseBody::own(bytes, open));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Sends a browser that came in the clear to the same place under TLS. 308 keeps the method.
pub fn redirect(open: Open, location: &str) -> Option<Response<ResponseBody>> {
    let location = HeaderValue::from_str(location).ok()?;
    open.exchange().answered(StatusCode::PERMANENT_REDIRECT, None);
    let mut told = HeaderMap::new();
    trail::tell(open.exchange(), &mut told, true);
    let mut response = Response::new(ResponseBody::own(Bytes::new(), open));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    *response.headers_mut() = told;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}
