//! The proxy's end of the stream to the control plane. It tries one address after the other, takes each push as far as it is
//! good, and says so; while there is nobody the last good policy goes on, and what is counted waits.

mod keeping;
mod pause;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use http::Uri;
use http::header::{AUTHORIZATION, HeaderValue};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::RngExt;
use spanmesh_proto::v1;
use spanmesh_proto::v1::discovery_client::DiscoveryClient;
use spanmesh_proto::v1::from_proxy::Message as From;
use spanmesh_proto::v1::to_proxy::Message as To;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use super::held::{Held, KINDS};
use super::read::{Snapshot, THRESHOLDS};
use super::store;
use crate::rules::sampling::Captured;
use crate::telemetry::metrics::{AnyThread, Gauge, Registry, family};
use crate::trace::export::dial::{self, Dial};
use crate::trace::export::retry::Failure;
use keeping::Keeping;
use pause::Pause;

/// What the client is given.
pub struct Settings {
    /// At least one.
    pub addresses: Vec<Dial>,
    /// Says who the proxy is. Read anew for each connection.
    pub token_file: Option<PathBuf>,
    pub node: v1::Node,
    /// Where the last good policy is kept.
    pub state: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
}

/// What the rest of the proxy does with it.
pub trait Road: Send {
    /// From now on this decides.
    fn apply(&mut self, snapshot: Snapshot);

    /// What was counted since the last time.
    fn report(&mut self) -> v1::Report;

    /// A capture may keep one more trace.
    fn permit(&mut self, capture: &str);

    /// The stream has ended, and permits with it.
    fn lost(&mut self);
}

/// What the rest of the proxy tells it.
pub struct News {
    /// Services that were called for the first time, as `service.namespace`.
    pub services: mpsc::Receiver<String>,
    pub captured: mpsc::Receiver<Captured>,
}

/// Runs until dropped.
pub async fn follow(settings: Settings, mut road: impl Road, mut news: News, registry: Registry) {
    let mut client = Client::new(settings, &registry);
    client.restore(&mut road).await;
    let mut pause = Pause::default();
    let count = client.settings.addresses.len().max(1);
    let mut place = rand::rng().random_range(0..count);
    loop {
        let before = client.pushes;
        let outcome = client.converse(place % count, &mut road, &mut news).await;
        client.connected.set(0);
        road.lost();
        if client.pushes > before {
            pause.reset();
        }
        let (reason, asked) = match outcome {
            Ended::Lost(reason) => (reason, None),
            Ended::Sent(after, reason) => (reason, Some(after)),
        };
        client.say(&reason);
        place += 1;
        let wait = asked.unwrap_or(Duration::ZERO).max(pause.next(&mut rand::rng()));
        // News must not pile up while nobody hears them.
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                Some(service) = news.services.recv() => client.called(service),
                Some(_) = news.captured.recv() => {}
                () = client.keeping.turn() => client.keep(),
            }
        }
    }
}

enum Ended {
    Lost(String),
    /// The control plane has asked for it.
    Sent(Duration, String),
}

struct Client {
    settings: Settings,
    held: Held,
    services: Vec<String>,
    registry: Registry,
    connected: Gauge<AnyThread>,
    pushes: u64,
    /// What was said last of why there is no connection.
    said: Option<String>,
    keeping: Keeping,
    /// A message came that this version does not know.
    is_behind: bool,
}

impl Client {
    fn new(settings: Settings, registry: &Registry) -> Self {
        Self {
            settings,
            held: Held::default(),
            services: Vec::new(),
            connected: registry.shared().gauge(family::CONTROL_PLANE_CONNECTED, &[]),
            registry: registry.clone(),
            pushes: 0,
            said: None,
            keeping: Keeping::default(),
            is_behind: false,
        }
    }

    /// The last good policy decides from the start.
    async fn restore(&mut self, road: &mut impl Road) {
        let Some(folder) = self.settings.state.clone() else { return };
        let shown = folder.display().to_string();
        let read = tokio::task::spawn_blocking(move || store::read(&folder)).await;
        match read {
            Ok(Ok(Some(bytes))) => match Held::from_bytes(&bytes, &self.settings.environment) {
                Some(held) => {
                    tracing::info!(version = held.version, "the policy that was kept in {shown} is in force");
                    self.services = held.services().map(str::to_owned).collect();
                    road.apply(held.snapshot());
                    self.held = held;
                }
                None => tracing::warn!("the policy that was kept in {shown} cannot be read"),
            },
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!("the policy that was kept in {shown}: {error}"),
        }
    }

    async fn converse(&mut self, place: usize, road: &mut impl Road, news: &mut News) -> Ended {
        let (out, messages) = mpsc::channel(MESSAGES);
        let hello = v1::Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            node: Some(self.settings.node.clone()),
            kinds: KINDS.map(str::to_owned).into(),
            held: self.held.told(),
            services: self.services.clone(),
        };
        if out.try_send(message(From::Hello(hello))).is_err() {
            return Ended::Lost("a message was lost".into());
        }
        let (mut pushes, _connection) = match timeout(CONNECT, self.open(place, messages)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(reason)) => return Ended::Lost(reason),
            Err(_) => return Ended::Lost(format!("does not answer within {} s", CONNECT.as_secs())),
        };
        self.is_behind = false;
        let mut next_report = tokio::time::interval_at(Instant::now() + REPORT, REPORT);
        next_report.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let answer = tokio::select! {
                pushed = pushes.message() => match pushed {
                    Ok(Some(v1::ToProxy { message })) => match message {
                        Some(To::Push(push)) => {
                            self.connected.set(1);
                            self.said = None;
                            self.take(&push, road)
                        }
                        Some(To::Permit(permit)) => {
                            road.permit(&permit.capture);
                            continue;
                        }
                        Some(To::Leave(leave)) => {
                            return Ended::Sent(Duration::from_millis(leave.after.into()).min(LONGEST_LEAVE), leave.reason);
                        }
                        // Of a version to come.
                        None => {
                            self.is_behind = true;
                            continue;
                        }
                    },
                    Ok(None) => return Ended::Lost("has ended the stream".into()),
                    Err(status) => return Ended::Lost(shown(&status)),
                },
                Some(service) = news.services.recv() => {
                    let fresh = !self.services.contains(&service);
                    self.called(service.clone());
                    if !fresh {
                        continue;
                    }
                    From::Interest(v1::Interest { services: vec![service] })
                }
                Some(Captured { capture, trace, .. }) = news.captured.recv() => {
                    From::Captured(v1::Captured { capture: capture.to_string(), trace: trace.to_bytes().to_vec() })
                }
                () = self.keeping.turn() => {
                    self.keep();
                    continue;
                }
                _ = next_report.tick() => {
                    let report = road.report();
                    From::Report(v1::Report { version: self.held.version, unknown: self.unknown(), ..report })
                }
            };
            // The control plane reads what it is sent, or its stream is of no use.
            if timeout(CONNECT, out.send(message(answer))).await.is_err() {
                return Ended::Lost("does not read what it is told".into());
            }
        }
    }

    /// All of a push that is good is in force when this returns.
    fn take(&mut self, push: &v1::Push, road: &mut impl Road) -> From {
        let refusals = self.held.apply(push, &self.settings.environment);
        road.apply(self.held.snapshot());
        self.pushes += 1;
        let outcome = if refusals.is_empty() { "taken" } else { "refused" };
        self.registry.shared().counter(family::POLICY_PUSHES, &[outcome]).add(1);
        for refusal in &refusals {
            tracing::warn!(
                "a pushed policy is refused, what was there before goes on: {}/{}: {}",
                refusal.kind,
                refusal.name,
                refusal.reason
            );
        }
        tracing::debug!(version = push.version, changed = push.changed.len(), "policy was pushed");
        if self.settings.state.is_some() {
            let mut kinds = push.changed.iter().map(|new| &new.kind).chain(push.removed.iter().map(|old| &old.kind));
            self.keeping.changed(push.whole || kinds.any(|kind| kind != THRESHOLDS), Instant::now());
        }
        let (nonce, version) = (push.nonce, push.version);
        match refusals.is_empty() {
            true => From::Ack(v1::Ack { nonce, version }),
            false => From::Nack(v1::Nack { nonce, version, refusals }),
        }
    }

    fn keep(&mut self) {
        if let Some(folder) = self.settings.state.clone() {
            self.keeping.write(folder, self.held.to_bytes(), Instant::now());
        }
    }

    async fn open(
        &mut self,
        place: usize,
        messages: mpsc::Receiver<v1::FromProxy>,
    ) -> Result<(Streaming<v1::ToProxy>, Connection), String> {
        let Some(dial) = self.settings.addresses.get(place) else { return Err("there is no address".into()) };
        let of = |reason: String| format!("{}: {reason}", dial.endpoint);
        let origin: Uri = dial.endpoint.to_string().parse().map_err(|_| of("is no address".into()))?;
        let io = dial.connect().await.map_err(|failure| of(unreachable(failure)))?;
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| of(error.to_string()))?;
        let connection = Connection(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the control plane ended");
            }
        }));
        let mut request = tonic::Request::new(Messages(messages));
        if let Some(path) = &self.settings.token_file {
            let token = token(path.clone()).await.map_err(|reason| format!("{}: {reason}", path.display()))?;
            request.metadata_mut().as_mut().insert(AUTHORIZATION, token);
        }
        let mut client = DiscoveryClient::with_origin(Channel(send), origin).max_decoding_message_size(LARGEST);
        let answer = client.follow(request).await.map_err(|status| of(shown(&status)))?;
        Ok((answer.into_inner(), connection))
    }

    /// What there is that this version does not know.
    fn unknown(&self) -> Vec<String> {
        let message = self.is_behind.then(|| "message: one came that this version does not know".to_owned());
        message.into_iter().chain(self.held.unknown()).collect()
    }

    fn called(&mut self, service: String) {
        if self.services.len() < SERVICES && !self.services.contains(&service) {
            self.services.push(service);
        }
    }

    /// Once for each change, and not for each try.
    fn say(&mut self, reason: &str) {
        if self.said.as_deref() != Some(reason) {
            tracing::warn!("the control plane cannot be followed, the policy goes on as it is: {reason}");
            self.said = Some(reason.to_owned());
        }
    }
}

fn message(message: From) -> v1::FromProxy {
    v1::FromProxy { message: Some(message) }
}

async fn token(path: PathBuf) -> Result<HeaderValue, String> {
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let text =
        read.map_err(|error| error.to_string())?.map_err(|error| format!("the token cannot be read: {error}"))?;
    dial::secret(format!("Bearer {}", text.trim()).as_bytes())
        .ok_or_else(|| "the token has characters that none has".into())
}

fn unreachable(failure: Failure) -> String {
    match failure {
        Failure::Unreachable(reason) | Failure::Lost(reason) => reason,
        _ => "does not answer".into(),
    }
}

fn shown(status: &tonic::Status) -> String {
    let text: String = status.message().chars().filter(|c| !c.is_control()).take(200).collect();
    format!("{:?}: {text}", status.code())
}

/// The connection's task, as long as the stream lives.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What goes to the control plane.
struct Messages(mpsc::Receiver<v1::FromProxy>);

impl Stream for Messages {
    type Item = v1::FromProxy;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::FromProxy>> {
        self.0.poll_recv(context)
    }
}

/// The connection as tonic wants it.
struct Channel(http2::SendRequest<tonic::body::Body>);

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Incoming>, hyper::Error>> + Send>>;

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Answer {
        Box::pin(self.0.send_request(request))
    }
}

const CONNECT: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(2);
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// A control plane that sends everybody away may not do so for good.
const LONGEST_LEAVE: Duration = Duration::from_secs(60);
const MESSAGES: usize = 16;
const SERVICES: usize = 4_096;
/// As much as a control plane sends.
const LARGEST: usize = 16 * 1024 * 1024;
