//! A Kubernetes API server as far as the control plane asks one, which does on request what a real one does when it is not
//! well: 410, 409, 429 with Retry-After, slow answers, watches that end, and nobody there at all. Objects, versions, watches
//! and conflicts follow <https://kubernetes.io/docs/reference/using-api/api-concepts/>.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

#[derive(Clone, Default)]
pub struct StandIn {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By collection, and by namespace and name.
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(u64, String, Value)>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// Watches from before this version are too old.
    oldest: u64,
    asked: Vec<Asked>,
    faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    /// Method and path with query.
    pub what: String,
    pub status: u16,
}

/// What becomes of requests whose method and path have all of `words` in them.
#[derive(Clone, Debug)]
pub struct Fault {
    pub words: Vec<&'static str>,
    pub times: usize,
    pub what: Wrong,
}

#[derive(Clone, Debug)]
pub enum Wrong {
    Answer(u16, Option<u64>),
    Slow(Duration),
    /// A watch that says in an event that it is too old.
    ErrorEvent,
    /// A watch that ends as soon as it has begun.
    Ends,
}

impl StandIn {
    /// On a port of the kernel's, until the handle is aborted.
    pub async fn listen(&self, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let here = self.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let here = here.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let here = here.clone();
                        async move { Ok::<_, Infallible>(here.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        (address, task)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test has panicked here")
    }

    pub fn fault(&self, words: &[&'static str], times: usize, what: Wrong) {
        self.lock().faults.push(Fault { words: words.to_vec(), times, what });
    }

    pub fn well(&self) {
        self.lock().faults.clear();
    }

    /// Requests whose method and path have all of these words.
    pub fn asked(&self, words: &[&str]) -> Vec<Asked> {
        let has = |asked: &&Asked| words.iter().all(|word| asked.what.contains(word));
        self.lock().asked.iter().filter(has).cloned().collect()
    }

    /// As `kubectl apply`: its generation grows.
    pub fn put(&self, collection: &str, mut object: Value) {
        let mut state = self.lock();
        let key = key(collection, &object);
        let before = state.objects.get(&key).cloned();
        let generation = before.as_ref().and_then(|object| object["metadata"]["generation"].as_u64()).unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
        object["metadata"]["uid"] = json!(format!("uid-{}", key.1.replace('/', "-")));
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if let Some(before) = before {
            object["status"] = before["status"].clone();
        }
        state.store(key, object);
    }

    pub fn get(&self, collection: &str, name: &str) -> Value {
        self.lock().objects.get(&(collection.into(), name.into())).cloned().unwrap_or(Value::Null)
    }

    pub fn all(&self, collection: &str) -> Vec<Value> {
        let state = self.lock();
        state.objects.iter().filter(|((of, _), _)| of == collection).map(|(_, object)| object.clone()).collect()
    }

    /// All watches end, and what they have not told is forgotten.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.watches.clear();
        state.oldest = state.version + 1;
    }

    /// Change the object, and no generation.
    pub fn edit(&self, collection: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut state = self.lock();
        let key = (collection.to_owned(), name.to_owned());
        let mut object = state.objects.get(&key).cloned().expect("it is there");
        edit(&mut object);
        state.store(key, object);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Out> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let what = format!("{} {}", head.method, head.uri);
        let wrong = {
            let mut state = self.lock();
            let has = |fault: &Fault| fault.times > 0 && fault.words.iter().all(|word| what.contains(word));
            let fault = state.faults.iter_mut().find(|fault| has(fault));
            fault.map(|fault| {
                fault.times -= 1;
                fault.what.clone()
            })
        };
        if let Some(Wrong::Slow(time)) = wrong {
            tokio::time::sleep(time).await;
        }
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let response = match takes(&head) {
            true => self.served(&head.method, &head.uri, body, wrong),
            false => said(406, &json!({"kind": "Status", "code": 406, "message": "a list is no object"})),
        };
        let status = response.status().as_u16();
        self.lock().asked.push(Asked { at: Instant::now(), what, status });
        response
    }

    fn served(&self, method: &Method, uri: &http::Uri, body: Value, wrong: Option<Wrong>) -> Response<Out> {
        match wrong {
            Some(Wrong::Answer(status, after)) => {
                let mut response =
                    said(status, &json!({"kind": "Status", "code": status, "message": "as was asked for"}));
                if let Some(after) = after {
                    response.headers_mut().insert("retry-after", after.into());
                }
                return response;
            }
            Some(Wrong::ErrorEvent) => {
                let event = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}});
                return whole(200, format!("{event}\n"));
            }
            Some(Wrong::Ends) => return whole(200, String::new()),
            Some(Wrong::Slow(_)) | None => {}
        }
        let mut state = self.lock();
        let (collection, name, part) = places(uri.path());
        let query = uri.query().unwrap_or_default();
        let key = (collection.clone(), name.clone());
        match *method {
            Method::GET if !name.is_empty() => match state.objects.get(&key) {
                Some(object) => said(200, object),
                None => said(404, &json!({"kind": "Status", "code": 404})),
            },
            Method::GET if query.contains("watch=true") => state.watch(collection, query),
            Method::GET => {
                let of = |((of, _), object): (&(String, String), &Value)| (*of == collection).then(|| object.clone());
                let items: Vec<Value> = state.objects.iter().filter_map(of).collect();
                said(200, &json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}))
            }
            Method::POST => {
                let key = self::key(&collection, &body);
                if state.objects.contains_key(&key) {
                    return said(409, &json!({"kind": "Status", "code": 409, "reason": "AlreadyExists"}));
                }
                let object = state.store(key, body);
                said(201, &object)
            }
            Method::PUT | Method::PATCH => {
                let Some(there) = state.objects.get(&key).cloned() else { return said(404, &json!({"code": 404})) };
                if there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return said(409, &json!({"kind": "Status", "code": 409, "reason": "Conflict"}));
                }
                let object = match part.as_str() {
                    "status" => {
                        let mut object = there;
                        object["status"] = body["status"].clone();
                        object
                    }
                    _ => body,
                };
                let object = state.store(key, object);
                said(200, &object)
            }
            _ => said(405, &Value::Null),
        }
    }
}

impl State {
    fn store(&mut self, key: (String, String), mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        let event = json!({"type": kind, "object": object});
        let line = Bytes::from(format!("{event}\n"));
        self.watches.retain(|(collection, out)| *collection != key.0 || out.send(line.clone()).is_ok());
        self.events.push((self.version, key.0.clone(), event));
        self.objects.insert(key, object.clone());
        object
    }

    fn watch(&mut self, collection: String, query: &str) -> Response<Out> {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or(0);
        if from < self.oldest {
            let event = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}});
            return whole(200, format!("{event}\n"));
        }
        let (out, lines) = mpsc::unbounded_channel();
        for (version, of, event) in &self.events {
            if *version > from && *of == collection {
                let _ = out.send(Bytes::from(format!("{event}\n")));
            }
        }
        let bookmark =
            json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": self.version.to_string()}}});
        let _ = out.send(Bytes::from(format!("{bookmark}\n")));
        self.watches.push((collection, out));
        Response::new(Out(lines))
    }
}

/// A body that goes on as long as somebody sends.
pub struct Out(mpsc::UnboundedReceiver<Bytes>);

impl Body for Out {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn said(status: u16, value: &Value) -> Response<Out> {
    whole(status, value.to_string())
}

fn whole(status: u16, text: String) -> Response<Out> {
    let (out, lines) = mpsc::unbounded_channel();
    let _ = out.send(Bytes::from(text));
    let mut response = Response::new(Out(lines));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn key(collection: &str, object: &Value) -> (String, String) {
    let word = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (word("namespace"), word("name"));
    let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
    (collection.to_owned(), name)
}

/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>: lists have a kind of their own.
fn takes(head: &http::request::Parts) -> bool {
    let accept = head.headers.get("accept").and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let is_list = head.method == Method::GET && head.uri.query().is_some_and(|query| query.contains("limit="));
    !accept.contains("as=PartialObjectMetadata") || accept.contains("as=PartialObjectMetadataList") == is_list
}

/// Collection, name with its namespace, and part, of a path such as `/apis/group/v1/namespaces/a/pods/b/status`.
fn places(path: &str) -> (String, String, String) {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let part = |place: usize| rest.get(place).copied().unwrap_or_default().to_owned();
    let name = if namespace.is_empty() || part(1).is_empty() { part(1) } else { format!("{namespace}/{}", part(1)) };
    (part(0), name, part(2))
}
