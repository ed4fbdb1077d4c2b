//! Takes spans over OTLP/HTTP, and answers what traces there are, as Tempo and Jaeger do: `GET /api/traces/ID` and
//! `GET /api/traces?limit=N`, in OTLP/JSON.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request};
use spanmesh_proto::TraceId;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::store::Store;
use crate::failure::Failure;
use crate::http::{Answer, Version, answer, serve};
use crate::trace::span::Span;
use crate::trace::{proto, read};

pub struct Receiver {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Receiver {
    pub async fn start(port: Option<u16>, store: Rc<RefCell<Store>>) -> Result<Self, Failure> {
        let listener = match listen(port, USUAL).await {
            Ok(listener) => listener,
            Err(error) => {
                let port = port.unwrap_or(USUAL);
                return Err(Failure::failed(format!(
                    "cannot listen on 127.0.0.1:{port} for spans: {error}; `--traces-port 0` takes a free port, `ss -ltnp` shows who has this one"
                )));
            }
        };
        let address = listener.local_addr().map_err(Failure::failed)?;
        let handler = move |request: Request<Bytes>| {
            let answer = respond(&request, &store);
            async move { answer }
        };
        let task = tokio::task::spawn_local(serve(listener, Version::Http1, handler));
        Ok(Self { address, task })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// On the port that was asked for; else on the usual one, or a free one where somebody has that.
pub async fn listen(port: Option<u16>, usual: u16) -> io::Result<TcpListener> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => at(port).await,
        None => match at(usual).await {
            Ok(listener) => Ok(listener),
            Err(_) => at(0).await,
        },
    }
}

fn respond(request: &Request<Bytes>, store: &RefCell<Store>) -> Answer {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    match (request.method(), path) {
        (&Method::POST, "/v1/traces") => receive(request, store),
        (&Method::GET, "/api/traces") => {
            let limit = query.split('&').find_map(|pair| pair.strip_prefix("limit=")?.parse().ok()).unwrap_or(LIST);
            let spans: Vec<Span> = store.borrow().latest(limit).flatten().cloned().collect();
            json(&spans)
        }
        (&Method::GET, _) if path.starts_with("/api/traces/") => {
            let id = path.trim_start_matches("/api/traces/");
            let Some(trace) = read::padded(id).and_then(TraceId::from_bytes) else {
                return answer(400, TEXT, "a trace id has 32 hexadecimal digits\n");
            };
            match store.borrow().trace(trace) {
                Some(spans) => json(spans),
                None => answer(404, TEXT, "no such trace\n"),
            }
        }
        (&Method::GET, "/") => answer(200, TEXT, "POST /v1/traces, GET /api/traces?limit=20, GET /api/traces/ID\n"),
        _ => answer(404, TEXT, "no such page\n"),
    }
}

fn receive(request: &Request<Bytes>, store: &RefCell<Store>) -> Answer {
    let is_json =
        request.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let spans = match is_json {
        true => read::read(&String::from_utf8_lossy(request.body())).map(|held| held.spans),
        false => proto::decode(request.body()),
    };
    match spans {
        Ok(spans) => {
            store.borrow_mut().add(spans);
            // An answer without a message says that all were taken.
            answer(200, if is_json { JSON } else { "application/x-protobuf" }, if is_json { "{}" } else { "" })
        }
        Err(why) => answer(400, TEXT, why),
    }
}

fn json(spans: &[Span]) -> Answer {
    answer(200, JSON, proto::encode(spans).to_string())
}

const USUAL: u16 = 16686;
const LIST: usize = 20;
const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
