//! Kubernetes' API server: everything that is asked of it is asked here, by kind and verb, so that `rbac.yaml` can be held
//! against it. It knows in how many ways the server says no and what each is worth; when to ask again is up to the caller.

pub mod counts;
pub mod failure;
mod lines;
pub mod resource;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::time::timeout;
use tower::util::{MapErr, option_layer};
use tower::{BoxError, Layer};

pub use counts::Counts;
pub use failure::Failure;
pub use lines::Lines;
pub use resource::{Resource, Verb};

/// A connection to the server. Clones share it.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    counts: Arc<Counts>,
}

impl Api {
    /// By the file, or else as kubectl finds its server, or else as a pod does.
    pub async fn new(file: Option<&Path>) -> Result<Self, String> {
        let config = match file {
            Some(file) => {
                let read = Kubeconfig::read_from(file).map_err(|error| error.to_string())?;
                let usual = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(read, &usual).await.map_err(|error| error.to_string())?
            }
            None => Config::infer().await.map_err(|error| {
                format!(
                    "there is neither a kubeconfig (KUBECONFIG, --kubeconfig) nor a service account of a pod: {error}"
                )
            })?,
        };
        Self::of(config).map_err(|error| error.to_string())
    }

    fn of(config: Config) -> Result<Self, kube::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        // A watch may be silent for minutes: whether somebody is there at all is for the kernel to find out.
        http.set_keepalive(Some(QUIET));
        http.set_keepalive_interval(Some(PROBE));
        http.set_keepalive_retries(Some(PROBES));
        let connector = config.rustls_https_connector_with_connector(http)?;
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        let service = config.extra_headers_layer()?.layer(MapErr::new(client, BoxError::from));
        let service = option_layer(config.auth_layer()?).layer(service);
        let service = config.base_uri_layer().layer(service);
        Ok(Self { client: kube::Client::new(service, config.default_namespace), counts: Arc::default() })
    }

    /// Where this program is, as far as the configuration knows.
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// A page of all objects of a kind, in all namespaces.
    pub async fn list(&self, resource: &Resource, from: Option<&str>) -> Result<Bytes, Failure> {
        let from = from.map(|from| format!("&continue={}", escaped(from))).unwrap_or_default();
        let uri = format!("{}?limit={PAGE}{from}", resource.all());
        self.whole(resource, Verb::List, request(Method::GET, uri, resource.accept(Verb::List))).await
    }

    /// What has changed since that version. The server ends it after `time`.
    pub async fn watch(&self, resource: &Resource, version: &str, time: Duration) -> Result<Lines, Failure> {
        let uri = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            resource.all(),
            escaped(version),
            time.as_secs()
        );
        let response =
            self.send(resource, Verb::Watch, request(Method::GET, uri, resource.accept(Verb::Watch))).await?;
        Ok(Lines::new(response.into_body(), time + GRACE))
    }

    pub async fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Value, Failure> {
        let uri = resource.one(namespace, name);
        let answer = self.whole(resource, Verb::Get, request(Method::GET, uri, JSON)).await?;
        parsed(&answer)
    }

    pub async fn create(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value, Failure> {
        let uri = resource.all_of(namespace);
        let request = with(request(Method::POST, uri, JSON), JSON, object);
        parsed(&self.whole(resource, Verb::Create, request).await?)
    }

    /// Fails with `Conflict` if it has another version than `object` says.
    pub async fn replace(&self, resource: &Resource, object: &Value) -> Result<Value, Failure> {
        let word = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let uri = resource.one(word("namespace"), word("name"));
        let request = with(request(Method::PUT, uri, JSON), JSON, object);
        parsed(&self.whole(resource, Verb::Update, request).await?)
    }

    /// Server-side apply. Fails with `Conflict` if it has another version than `object` says.
    pub async fn apply(&self, resource: &Resource, object: &Value) -> Result<(), Failure> {
        let word = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let uri = format!("{}?fieldManager={MANAGER}&force=true", resource.one(word("namespace"), word("name")));
        let request = with(request(Method::PATCH, uri, JSON), APPLY, object);
        self.whole(resource, Verb::Patch, request).await.map(drop)
    }

    async fn whole(&self, resource: &Resource, verb: Verb, request: Request<Body>) -> Result<Bytes, Failure> {
        let answer = async {
            let body = self.send(resource, verb, request).await?.into_body();
            let body = Limited::new(body, LARGEST).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| Failure::Away(format!("the answer broke off: {error}")))
        };
        timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(slow()))
    }

    async fn send(&self, resource: &Resource, verb: Verb, request: Request<Body>) -> Result<Response<Body>, Failure> {
        debug_assert!(resource.verbs.contains(&verb), "{verb:?} of {} is not in the list", resource.plural);
        let answer = self.answered(request).await;
        self.counts.add(verb, answer.as_ref().err());
        answer
    }

    async fn answered(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let response = timeout(ANSWER, self.client.send(request)).await.map_err(|_| slow())?;
        let response = response.map_err(|error| Failure::Away(said(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = timeout(ANSWER, Limited::new(body, SAID).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Err(Failure::of(head.status, head.headers.get(header::RETRY_AFTER), &body))
    }
}

fn request(method: Method, uri: String, accept: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    // Names come from the server itself, or from lists here.
    *request.uri_mut() = uri.parse().unwrap_or_default();
    if let Ok(accept) = accept.parse() {
        request.headers_mut().insert(header::ACCEPT, accept);
    }
    request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static(AGENT));
    request
}

fn with(mut request: Request<Body>, kind: &'static str, object: &Value) -> Request<Body> {
    *request.body_mut() = Body::from(object.to_string().into_bytes());
    request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    request
}

fn parsed(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::Away(format!("the answer is no JSON: {error}")))
}

/// Versions and places to go on from are opaque.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn slow() -> Failure {
    Failure::Away(format!("no answer within {} s", ANSWER.as_secs()))
}

/// With what is below it: the outermost one says little.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

/// Who has written a field, in `metadata.managedFields`.
pub const MANAGER: &str = "spanmesh-control-plane";
const AGENT: &str = concat!("spanmesh-control-plane/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
/// Objects on a page, as kubectl asks: a large cluster is read in pieces that the server can hold.
const PAGE: u32 = 500;
/// Of a page: objects have at most 1.5 MiB each, and those that are watched some KiB.
const LARGEST: usize = 256 * 1024 * 1024;
/// Of what is said about a failure.
const SAID: usize = 64 * 1024;
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
/// That a watch may take longer than it was asked to.
const GRACE: Duration = Duration::from_secs(15);
const QUIET: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
