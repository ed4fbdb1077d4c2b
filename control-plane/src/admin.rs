//! What operators see: who is connected and how far each is, what became of each resource, metrics. HTTP/1.1, read only.

mod metrics;
mod pages;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::api::Counts;
use crate::capturing::Shown;
use crate::picture::Picture;
use crate::push::Door;
use crate::push::registry::Registry;
use crate::source::Reading;

/// What the pages show.
#[derive(Clone)]
pub struct View {
    pub registry: Arc<Registry>,
    pub door: Arc<Door>,
    pub pictures: watch::Receiver<Option<Arc<Picture>>>,
    pub readings: watch::Receiver<Reading>,
    pub captures: watch::Receiver<Vec<Shown>>,
    /// Where there is an API server.
    pub asked: Option<Arc<Counts>>,
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, view: View) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let view = view.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let answer = answer(&request, &view);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .max_buf_size(HEAD)
                .serve_connection(TokioIo::new(socket), service);
            // A client that goes away or sends nonsense is its own trouble.
            let _ = connection.await;
        });
    }
}

fn answer(request: &Request<Incoming>, view: &View) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "these pages can only be read: use GET\n".into());
    }
    match request.uri().path() {
        "/" => text(StatusCode::OK, "text/plain", pages::INDEX.into()),
        "/live" => text(StatusCode::OK, "text/plain", "live\n".into()),
        "/ready" => match view.pictures.borrow().is_some() {
            true => text(StatusCode::OK, "text/plain", "ready\n".into()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the source was not read yet\n".into()),
        },
        "/proxies" => json(&pages::proxies(view)),
        "/resources" => json(&pages::resources(view)),
        "/sampling" => json(&pages::sampling(view)),
        "/captures" => json(&pages::captures(view)),
        "/metrics" => text(StatusCode::OK, metrics::TYPE, metrics::all(view)),
        _ => text(StatusCode::NOT_FOUND, "text/plain", format!("there is no such page\n\n{}", pages::INDEX)),
    }
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    text(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

const CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);
const HEAD: usize = 16 * 1024;
const REST: Duration = Duration::from_millis(100);
