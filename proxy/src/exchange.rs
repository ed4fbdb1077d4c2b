//! The record of one request, or of one opaque connection: opened with the first facts, closed exactly once, `Drop`
//! included. Metrics, the access log and the spans are views of it (`views`), written at the close and nowhere else, so
//! that they never disagree.
//!
//! `Open` is the one owner: it moves from the request's future into the answer's body or into the tunnel. Dropped
//! without a word it means that the client went away. `Exchange` is what the others hold to count bytes.

mod spans;
mod views;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use spanmesh_proto::SpanId;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::error::Flag;
use crate::http::client::Made;
use crate::limit::Limit;
use crate::meters::Direction;
use crate::rules::sampling::Tally;
use crate::trace::context::TraceContext;
use crate::trace::export;
use crate::trace::in_flight::Ticket;
use crate::trace::span::micros;
use crate::trace::trust::Notes;
use crate::worker::policy::{Held, Policy};

/// One request. Shared with the bodies of its attempts; they are all on one thread.
pub struct Exchange {
    connection: Rc<Connection>,
    /// The one that held when it began.
    policy: Held,
    opened: Instant,
    /// Bodies count here without borrowing the record.
    sent: Cell<u64>,
    received: Cell<u64>,
    request_failed: Cell<Option<Flag>>,
    uploaded: Cell<bool>,
    /// Its place among the answers that go out (`http::stalled`).
    place: Cell<Option<usize>>,
    /// Why the worker ends it.
    cut: Cell<Option<Flag>>,
    /// The task that carries it.
    task: Cell<Option<Waker>>,
    /// The application works on it.
    works: Cell<Option<Ticket>>,
    record: RefCell<Record>,
}

/// What is known of the request so far.
pub struct Record {
    pub request: Option<RequestFacts>,
    pub route: Option<Rc<str>>,
    /// The path that the route is configured with.
    pub template: Option<Rc<str>>,
    pub upstream: Option<Rc<str>>,
    pub status: Option<StatusCode>,
    pub grpc: Option<GrpcFacts>,
    pub flag: Option<Flag>,
    /// Why the client's handshake or the latest attempt's connection failed, in words for whoever has to mend it.
    pub detail: Option<String>,
    /// Whom the request is from, where a believed proxy has told it.
    pub client: Option<IpAddr>,
    /// For a span: `User-Agent`.
    pub agent: Option<HeaderValue>,
    /// For a span: what the configuration wants of the request's head, and behind `asked` bytes of the answer's.
    pub custom: Vec<u8>,
    pub asked: usize,
    /// What was reported while it lives: the latest, and how often in all.
    pub reports: Reports,
    /// The trace, and the span that the callee has as its parent where no attempt has one of its own.
    pub trace: Option<(TraceContext, SpanId)>,
    /// How the trace came about.
    pub notes: Notes,
    /// It makes no spans, whatever its trace.
    pub untraced: bool,
    pub attempts: Attempts,
    pub first_byte: Option<Instant>,
    pub deadline: Option<Instant>,
    pub idle_timeout: Duration,
}

/// The facts that a request opens with.
#[derive(Clone, Debug)]
pub struct RequestFacts {
    /// Unknown of a head that could not be read.
    pub method: Option<Method>,
    pub path: Option<PathAndQuery>,
    pub host: Option<HeaderValue>,
    pub version: Version,
}

impl RequestFacts {
    pub fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let authority = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        Self {
            method: Some(request.method().clone()),
            path: uri.path_and_query().cloned(),
            host: authority.or_else(|| request.headers().get(HOST).cloned()),
            version: request.version(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcFacts {
    pub status: Option<u32>,
}

/// One try at one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub endpoint: SocketAddr,
    pub span: SpanId,
    pub started: Instant,
    pub ended: Option<Instant>,
    /// What was spoken, where it came so far, and whether under TLS.
    pub version: Option<Version>,
    pub secure: bool,
    pub status: Option<StatusCode>,
    pub flag: Option<Flag>,
    /// The wait for its connection, in microseconds, and what the making of it took. Unknown of one that lay ready.
    pub waited: Option<u32>,
    pub made: Option<Made>,
}

/// Nearly every request has one attempt and no room of its own for more.
#[derive(Default)]
pub struct Attempts {
    first: Option<Attempt>,
    others: Vec<Attempt>,
}

impl Attempts {
    fn push(&mut self, attempt: Attempt) {
        match self.first {
            None => self.first = Some(attempt),
            Some(_) => self.others.push(attempt),
        }
    }

    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.first.iter().chain(&self.others)
    }

    pub fn last(&self) -> Option<&Attempt> {
        self.others.last().or(self.first.as_ref())
    }

    fn last_mut(&mut self) -> Option<&mut Attempt> {
        self.others.last_mut().or(self.first.as_mut())
    }
}

/// What was reported of a request while it lived.
#[derive(Debug, Default)]
pub struct Reports {
    pub last: Option<Instant>,
    pub count: u32,
    /// When, and the bytes of the request and of the answer so far.
    pub kept: VecDeque<(Instant, u64, u64)>,
}

impl Reports {
    fn add(&mut self, now: Instant, sent: u64, received: u64) {
        self.last = Some(now);
        self.count = self.count.saturating_add(1);
        if self.kept.len() == REPORTS {
            self.kept.pop_front();
        }
        self.kept.push_back((now, sent, received));
    }
}

/// The one owner of an open exchange.
pub struct Open(Option<Rc<Exchange>>);

impl Open {
    /// Opens the exchange of a request that can be read.
    pub fn request(connection: Rc<Connection>, facts: RequestFacts, grpc: bool) -> Self {
        let open = Self::begin(connection, Some(facts), grpc.then(GrpcFacts::default));
        open.exchange().connection.opened(open.exchange());
        open
    }

    /// Opens the exchange of a request whose head the engine refused, and answered with this status if it answered.
    pub fn unread(connection: Rc<Connection>, status: Option<StatusCode>) -> Self {
        let version = if connection.http2.get() { Version::HTTP_2 } else { Version::HTTP_11 };
        let facts = RequestFacts { method: None, path: None, host: None, version };
        let open = Self::begin(connection, Some(facts), None);
        if let Some(status) = status {
            open.exchange().answered(status, None);
        }
        open
    }

    /// Opens the exchange of bytes that are no request.
    pub fn bytes(connection: Rc<Connection>) -> Self {
        Self::begin(connection, None, None)
    }

    fn begin(connection: Rc<Connection>, request: Option<RequestFacts>, grpc: Option<GrpcFacts>) -> Self {
        let idle_timeout = connection.worker.limits.idle_timeout;
        connection.began();
        connection.listener.meters.began();
        let policy = connection.listener.policy.borrow().clone();
        Self(Some(Rc::new(Exchange {
            policy,
            opened: Instant::now(),
            sent: Cell::new(0),
            received: Cell::new(0),
            request_failed: Cell::new(None),
            uploaded: Cell::new(false),
            place: Cell::new(None),
            cut: Cell::new(None),
            task: Cell::new(None),
            works: Cell::new(None),
            record: RefCell::new(Record {
                request,
                route: None,
                template: None,
                upstream: None,
                status: None,
                grpc,
                flag: None,
                detail: None,
                client: None,
                agent: None,
                custom: Vec::new(),
                asked: 0,
                reports: Reports::default(),
                trace: None,
                notes: Notes::default(),
                untraced: false,
                attempts: Attempts::default(),
                first_byte: None,
                deadline: None,
                idle_timeout,
            }),
            connection,
        })))
    }

    pub fn exchange(&self) -> &Rc<Exchange> {
        // Taken only by `complete`, `fail` and `drop`, which consume the owner.
        match &self.0 {
            Some(exchange) => exchange,
            None => unreachable!("an open exchange is owned until it is closed"),
        }
    }

    /// It ended before its end.
    pub fn fail(self, flag: Flag) {
        self.end(flag, Instant::now());
    }

    /// It has ended: `ok` at its last byte.
    pub fn end(mut self, flag: Flag, now: Instant) {
        if let Some(exchange) = self.0.take() {
            exchange.close(flag, now);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            let connection = &exchange.connection;
            let now = Instant::now();
            let draining = connection.aborted() || connection.worker.drain.is_over(now);
            let flag = match exchange.cut.get() {
                Some(flag) => flag,
                None if draining => Flag::Draining,
                None => Flag::ClientReset,
            };
            exchange.close(flag, now);
        }
    }
}

impl Exchange {
    pub fn opened(&self) -> Instant {
        self.opened
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.record.borrow().deadline
    }

    pub fn idle_timeout(&self) -> Duration {
        self.record.borrow().idle_timeout
    }

    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Bytes of the request's body went to the upstream.
    pub fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// Bytes carried so far, both ways: what does not change lies still.
    pub fn moved(&self) -> u64 {
        self.sent.get().wrapping_add(self.received.get())
    }

    /// Like `moved`, with what the client's socket takes: an HTTP/1 connection has one exchange at a time.
    pub fn moved_outside(&self) -> u64 {
        let socket = if self.connection.http2.get() { 0 } else { self.connection.moved() };
        self.moved().wrapping_add(socket)
    }

    pub fn place(&self, place: usize) {
        self.place.set(Some(place));
    }

    /// The task that carries this looks at `is_cut` when it is woken.
    pub fn carried_by(&self, task: &Waker) {
        self.task.set(Some(task.clone()));
    }

    /// Ends it from outside: the task that carries it is woken to drop it.
    pub fn cut(&self, flag: Flag) {
        self.cut.set(Some(flag));
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    pub fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    /// It lives, and has carried so many bytes: reported at most once in each interval.
    pub fn lives(&self, sent: u64, received: u64, now: Instant) {
        let every = self.connection.worker.interim;
        if every.is_zero() || now.duration_since(self.opened) < every {
            return;
        }
        let mut record = self.record.borrow_mut();
        let since = record.reports.last.unwrap_or(self.opened);
        if now.duration_since(since) >= every && spans::is_made(self, &record) {
            record.reports.add(now, sent, received);
            spans::interim(self, &record, since, now);
        }
    }

    /// As its own counters have it.
    pub fn goes_on(&self, now: Instant) {
        self.lives(self.sent.get(), self.received.get(), now);
    }

    /// Bytes of the answer's body came for the client.
    pub fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    /// The client broke off while sending its body, or sent what may not be sent on.
    pub fn request_failed(&self, flag: Flag) {
        self.request_failed.set(Some(flag));
    }

    pub fn request_failure(&self) -> Option<Flag> {
        self.request_failed.get()
    }

    /// The answer's head is on its way.
    pub fn is_answered(&self) -> bool {
        self.record.borrow().first_byte.is_some()
    }

    /// It ran into a limit: counted, and the flag that it ends with.
    pub fn limited(&self, limit: Limit) -> Flag {
        self.connection.worker.meters.limited(limit);
        limit.flag().unwrap_or(Flag::ClientReset)
    }

    /// The client has nothing more to send.
    pub fn uploaded(&self) {
        self.uploaded.set(true);
    }

    pub fn is_uploaded(&self) -> bool {
        self.uploaded.get()
    }

    /// Its answer ends before its end. A client of HTTP/1.0 would take the connection's end for the answer's.
    pub fn broke_off(&self) {
        if self.record.borrow().request.as_ref().is_some_and(|request| request.version == Version::HTTP_10) {
            self.connection.seen().abrupt();
        }
    }

    pub fn is_grpc(&self) -> bool {
        self.record.borrow().grpc.is_some()
    }

    pub fn grpc_status(&self, status: u32) {
        if let Some(grpc) = &mut self.record.borrow_mut().grpc {
            grpc.status = Some(status);
        }
    }

    pub fn trailers_dropped(&self, direction: Direction) {
        self.connection.worker.meters.trailers_dropped(direction);
    }

    /// What a span says of the caller.
    pub fn called_by(&self, client: Option<IpAddr>, agent: Option<&HeaderValue>) {
        if !export::COMPILED {
            return;
        }
        let mut record = self.record.borrow_mut();
        record.client = client;
        record.agent = agent.cloned();
    }

    /// What the configuration wants of the request's head, for its spans.
    pub fn asked(&self, headers: &HeaderMap) {
        if !self.connection.worker.spans.is_on() {
            return;
        }
        let mut record = self.record.borrow_mut();
        self.policy.manner.custom.request(headers, &mut record.custom);
        record.asked = record.custom.len();
    }

    /// The same of the answer's.
    pub fn heard(&self, headers: &HeaderMap) {
        let mut record = self.record.borrow_mut();
        if spans::is_made(self, &record) {
            self.policy.manner.custom.answer(headers, &mut record.custom);
        }
    }

    pub fn traced(&self, context: TraceContext, span: SpanId, notes: Notes) {
        let mut record = self.record.borrow_mut();
        record.trace = Some((context, span));
        record.notes = notes;
    }

    /// Who decided is counted.
    pub fn decided(&self, notes: &Notes) {
        if let Some(reason) = notes.reason {
            let tally = self.policy.tally();
            // What somebody forced has come decided.
            tally.count(reason.seat, reason.kept);
            if let Some((boost, kept)) = reason.boost {
                tally.count(boost, kept);
            }
        }
    }

    /// Some rule may keep it at its end.
    pub fn may_be_kept(&self) -> bool {
        self.policy.rules.sampling.keeps()
    }

    pub fn tally(&self) -> &Tally {
        self.policy.tally()
    }

    pub fn untraced(&self) {
        self.record.borrow_mut().untraced = true;
    }

    pub fn is_untraced(&self) -> bool {
        self.record.borrow().untraced
    }

    /// Until its end, what the application sends without a context may come from it.
    pub fn works(&self, ticket: Ticket) {
        self.works.set(Some(ticket));
    }

    pub fn trace(&self) -> Option<(TraceContext, SpanId)> {
        self.record.borrow().trace
    }

    /// The route is its name and the path that it is configured with.
    pub fn routed(
        &self,
        route: (Option<Rc<str>>, Option<Rc<str>>),
        upstream: Rc<str>,
        deadline: Option<Instant>,
        idle: Option<Duration>,
    ) {
        let mut record = self.record.borrow_mut();
        (record.route, record.template) = route;
        record.upstream = Some(upstream);
        record.deadline = deadline;
        record.idle_timeout = idle.unwrap_or(record.idle_timeout);
    }

    /// The answer's head is on its way to the client. A flag set here stays: it says why the proxy answered itself.
    pub fn answered(&self, status: StatusCode, flag: Option<Flag>) {
        let mut record = self.record.borrow_mut();
        record.status = Some(status);
        record.flag = flag;
        record.first_byte = Some(Instant::now());
    }

    pub fn attempt(&self, endpoint: SocketAddr, secure: bool, span: SpanId, started: Instant) {
        let attempt = Attempt {
            endpoint,
            span,
            started,
            ended: None,
            version: None,
            secure,
            status: None,
            flag: None,
            waited: None,
            made: None,
        };
        let mut record = self.record.borrow_mut();
        record.attempts.push(attempt);
        record.detail = None;
    }

    /// The latest attempt has a connection, after it had to wait for one.
    pub fn leased(&self, made: Option<Made>, now: Instant) {
        if let Some(attempt) = self.record.borrow_mut().attempts.last_mut() {
            let making = made.map_or(0, |made| made.connect.saturating_add(made.tls.unwrap_or(0)));
            attempt.waited = Some(micros(now.duration_since(attempt.started)).saturating_sub(making));
            attempt.made = made;
        }
    }

    /// Why there is no connection, in words.
    pub fn explain(&self, detail: String) {
        self.record.borrow_mut().detail = Some(detail);
    }

    /// The latest attempt was answered; it ends with the exchange, or when another begins.
    pub fn attempt_answered(&self, status: StatusCode, version: Version) {
        if let Some(attempt) = self.record.borrow_mut().attempts.last_mut() {
            attempt.status = Some(status);
            attempt.version = Some(version);
        }
    }

    /// The latest attempt is over, another may follow.
    pub fn attempt_ended(&self, flag: Flag) {
        if let Some(attempt) = self.record.borrow_mut().attempts.last_mut() {
            attempt.ended = Some(Instant::now());
            attempt.flag = Some(flag);
        }
    }

    fn close(&self, flag: Flag, ended: Instant) {
        drop(self.works.take());
        if let Some(place) = self.place.take() {
            self.connection.worker.answers.remove(place);
        }
        let flag = {
            let mut record = self.record.borrow_mut();
            let flag = match record.flag {
                Some(known) if known != Flag::Ok => known,
                _ => flag,
            };
            record.flag = Some(flag);
            if let Some(attempt) = record.attempts.last_mut()
                && attempt.ended.is_none()
            {
                attempt.ended = Some(ended);
                attempt.flag = Some(flag);
            }
            flag
        };
        if flag == Flag::ClientReset && ended.duration_since(self.opened) < AT_ONCE {
            self.connection.given_up(ended);
        }
        self.connection.ended(ended);
        views::write(self, flag, ended);
    }
}

/// A client that gives a request up sooner did not want its answer.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Events of a span; of a stream that lives for days the latest are kept.
const REPORTS: usize = 32;
