//! The five services, one a process. Each does next to nothing, and forwards the trace headers that it was sent: that is
//! all that a mesh asks of an application. One of them knows only B3.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use rand::RngExt;
use tokio::net::TcpListener;

use crate::failure::Failure;
use crate::http::{Answer, Version, Whole, answer, ask, serve};

/// Serves until the process is ended. `told` says where the sidecar takes calls.
pub async fn run(name: &str, address: &str, told: Receiver<String>) -> Result<(), Failure> {
    let Some(kind) = Kind::of(name) else { return Err(Failure::failed(format!("there is no service `{name}`"))) };
    let listener = TcpListener::bind(address).await.map_err(|error| Failure::failed(format!("{address}: {error}")))?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    crate::terminal::Terminal::new(crate::terminal::Colours::Never, None).print(&format!("listening {address}"))?;
    let app = Rc::new(App { kind, out: Cell::new(None), count: Cell::new(0) });
    let learner = app.clone();
    tokio::task::spawn_local(async move {
        let line = tokio::task::spawn_blocking(move || told.recv()).await;
        learner.out.set(line.ok().and_then(Result::ok).and_then(|line| line.parse().ok()));
    });
    let version = if kind == Kind::Prices { Version::Http2 } else { Version::Http1 };
    serve(listener, version, move |request| {
        let app = app.clone();
        async move { app.answer(&request).await }
    })
    .await;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shop,
    Prices,
    Orders,
    Stock,
    Payment,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "shop" => Some(Self::Shop),
            "prices" => Some(Self::Prices),
            "orders" => Some(Self::Orders),
            "stock" => Some(Self::Stock),
            "payment" => Some(Self::Payment),
            _ => None,
        }
    }

    fn forwards(self) -> &'static [&'static str] {
        match self {
            Self::Orders => &["b3"],
            Self::Shop | Self::Prices | Self::Stock | Self::Payment => &["traceparent", "tracestate", "baggage"],
        }
    }
}

struct App {
    kind: Kind,
    out: Cell<Option<SocketAddr>>,
    count: Cell<u64>,
}

impl App {
    async fn answer(&self, request: &Request<Bytes>) -> Answer {
        self.count.set(self.count.get() + 1);
        match self.kind {
            Kind::Shop => self.shop(request.headers()).await,
            Kind::Orders => self.orders(request.headers()).await,
            Kind::Prices => prices().await,
            Kind::Stock => {
                pause(80..180).await;
                answer(200, JSON, "{\"left\":7}")
            }
            Kind::Payment => {
                pause(5..20).await;
                match fails(self.count.get()) {
                    true => answer(503, JSON, DECLINED),
                    false => answer(200, JSON, "{\"paid\":true}"),
                }
            }
        }
    }

    async fn shop(&self, headers: &HeaderMap) -> Answer {
        pause(1..4).await;
        let mut quote = BytesMut::new();
        quote.put_slice(&[0, 0, 0, 0, 0]);
        let quote =
            self.call(headers, Version::Http2, Method::POST, "prices.demo", "/demo.Prices/Quote", quote.freeze());
        let price = match quote.await {
            Some(whole) if grpc_ok(&whole) => whole.body.last().copied().unwrap_or_default(),
            _ => return answer(502, JSON, "{\"error\":\"no price\"}"),
        };
        let order = self.call(headers, Version::Http1, Method::PUT, "orders.demo", "/orders/7", Bytes::new());
        match order.await {
            Some(whole) => {
                let order = String::from_utf8_lossy(&whole.body).into_owned();
                let status = if whole.head.status.is_success() { 200 } else { 502 };
                answer(status, JSON, format!("{{\"price\":{price},\"order\":{order}}}\n"))
            }
            None => answer(502, JSON, "{\"error\":\"no order\"}\n"),
        }
    }

    async fn orders(&self, headers: &HeaderMap) -> Answer {
        let agrees = agrees(headers);
        let (stock, payment) = tokio::join!(
            self.call(headers, Version::Http1, Method::GET, "stock.demo", "/stock/7", Bytes::new()),
            self.call(headers, Version::Http1, Method::PUT, "payment.demo", "/payments/7", Bytes::new()),
        );
        let good = |whole: &Option<Whole>| whole.as_ref().is_some_and(|whole| whole.head.status.is_success());
        let stock = good(&stock);
        let paid = match &payment {
            _ if good(&payment) => "true",
            // It was asked, and this is its own answer.
            Some(whole) if whole.body == DECLINED => "false",
            Some(_) | None => "null",
        };
        let status = if stock && paid == "true" { 200 } else { 502 };
        let word = if agrees { "agrees" } else { "disagrees" };
        answer(status, JSON, format!("{{\"stock\":{stock},\"paid\":{paid},\"b3\":\"{word}\"}}"))
    }

    /// Through the sidecar, with the headers that were sent here.
    async fn call(
        &self,
        headers: &HeaderMap,
        version: Version,
        method: Method,
        host: &str,
        path: &str,
        body: Bytes,
    ) -> Option<Whole> {
        let out = self.out.get()?;
        let mut request = Request::builder().method(method);
        request = match version {
            Version::Http1 => request.uri(path).header("host", host),
            Version::Http2 => request
                .uri(format!("http://{host}{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers"),
        };
        for name in self.kind.forwards() {
            for value in headers.get_all(*name) {
                request = request.header(*name, value);
            }
        }
        ask(out, version, request.body(Full::new(body)).ok()?, PATIENCE).await.ok()
    }
}

async fn prices() -> Answer {
    pause(2..6).await;
    let mut message = BytesMut::new();
    // A message of two bytes: field 1, a number.
    message.put_slice(&[0, 0, 0, 0, 2, 0x08, 42]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    answer
}

fn grpc_ok(whole: &Whole) -> bool {
    let status = whole.trailers.get("grpc-status").or_else(|| whole.head.headers.get("grpc-status"));
    status.is_some_and(|status| status == "0")
}

/// Whether both headers tell of the same trace and the same span.
fn agrees(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (w3c, b3) = (text("traceparent"), text("b3"));
    let w3c: Vec<_> = w3c.split('-').skip(1).take(2).collect();
    let b3: Vec<_> = b3.split('-').take(2).collect();
    w3c.len() == 2 && w3c == b3
}

/// Of fourteen tries one fails and is fine when it is made again, and two fail one after the other, so that the payment does.
fn fails(count: u64) -> bool {
    matches!(count % 14, 3 | 9 | 10)
}

async fn pause(milliseconds: std::ops::Range<u64>) {
    let wait = rand::rng().random_range(milliseconds);
    tokio::time::sleep(Duration::from_millis(wait)).await;
}

const JSON: &str = "application/json";
const DECLINED: &str = "{\"error\":\"the bank does not answer\"}";
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_have_to_tell_of_the_same_span() {
        let mut headers = HeaderMap::new();
        headers
            .insert("traceparent", HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!agrees(&headers));
        headers.insert("b3", HeaderValue::from_static("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"));
        assert!(agrees(&headers));
        headers.insert("b3", HeaderValue::from_static("0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-1"));
        assert!(!agrees(&headers));
    }
}
