//! The load: many connections on one thread. Closed loop asks again as soon as an answer is complete and so finds the
//! most that a proxy can do; open loop asks when the clock says, and counts from that moment, so that a proxy that
//! stalls is not spared the requests that would have come meanwhile (coordinated omission).

mod http1;
mod http2;
pub mod options;
mod tcp;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use self::options::{Options, Work};
use crate::histogram::Histogram;
use crate::output::Output;
use crate::poll::Poll;
use crate::stream::Stream;
use crate::watch::{Core, Moment, TICKS};
use crate::{Broken, certificate};

/// What is spoken on one connection.
pub trait Client {
    /// Once, when the connection is there.
    fn begin(&mut self, _out: &mut Output) {}

    /// How many more requests it takes now.
    fn free(&self) -> usize;

    /// One request that was due at `due`, in nanoseconds since the start.
    fn ask(&mut self, due: u64, out: &mut Output);

    /// Reads answers, and tells the tally of each that is complete and right.
    fn receive(&mut self, input: &[u8], out: &mut Output, tally: &mut Tally) -> Result<(), Broken>;

    /// Whether the end of the connection is what it waits for.
    fn is_over(&self) -> bool {
        false
    }
}

/// What came of the requests.
#[derive(Default)]
pub struct Tally {
    pub now: u64,
    pub done: u64,
    pub bytes: u64,
    pub latencies: Histogram,
    /// Requests that were due before this are not measured.
    pub measured_from: u64,
    pub errors: u64,
    pub error: String,
}

impl Tally {
    pub fn done(&mut self, due: u64) {
        self.done += 1;
        if due >= self.measured_from {
            self.latencies.add(self.now.saturating_sub(due));
        }
    }

    fn failed(&mut self, broken: Broken) {
        self.errors += 1;
        self.error = broken;
    }
}

/// Runs the load and reports what was seen.
pub fn run(options: &Options) -> io::Result<Value> {
    let mut load = Load::new(options)?;
    load.tally.measured_from = u64::MAX;
    load.connect_all()?;
    let seconds = |seconds: f64| Duration::from_secs_f64(seconds);
    if options.work == Work::Idle {
        // One that is closed in the meantime is seen and told.
        load.pass(seconds(options.settle))?;
        return Ok(load.report(None, &load.mark()));
    }
    if options.requests > 0 {
        let before = load.mark();
        load.tally.measured_from = 0;
        load.until(|load| load.tally.done >= options.requests)?;
        let after = load.mark();
        return Ok(load.report(Some(&before), &after));
    }
    load.pass(seconds(options.warm))?;
    let before = load.mark();
    load.tally.measured_from = load.now();
    load.pass(seconds(options.seconds))?;
    // A window so short that nothing came of it is made longer.
    let empty = |load: &Load<'_>| (load.tally.done, load.tally.bytes) == (before.done, before.bytes);
    let limit = load.now() + LATE.as_nanos() as u64;
    load.until(|load| !empty(load) || load.now() >= limit)?;
    let after = load.mark();
    let mut report = load.report(Some(&before), &after);
    if options.rate > 0.0 {
        load.last_words(&mut report)?;
    }
    Ok(report)
}

struct Load<'a> {
    options: &'a Options,
    start: Instant,
    poll: Poll,
    buffer: Vec<u8>,
    connections: Vec<Option<Connection>>,
    tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    tally: Tally,
    asked: u64,
    /// Open loop: what is due and has not been asked, the connections that are free, and when the next is due.
    due: VecDeque<u64>,
    free: VecDeque<usize>,
    next: u64,
    asking: bool,
}

struct Connection {
    stream: Stream,
    client: Box<dyn Client>,
    out: Output,
    connected: bool,
    writes: bool,
    answered: bool,
    asked: u64,
    since: u64,
}

/// At one moment.
struct Mark {
    at: u64,
    done: u64,
    bytes: u64,
    moment: Moment,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> io::Result<Self> {
        let tls = match &options.tls {
            Some(path) => Some(certificate::client(path, options.work.alpn())?),
            None => None,
        };
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        Ok(Self {
            options,
            start: Instant::now(),
            poll: Poll::new()?,
            buffer: vec![0; 256 * 1024],
            connections: Vec::new(),
            tls,
            tally: Tally::default(),
            asked: 0,
            due: VecDeque::new(),
            free: VecDeque::new(),
            next: u64::MAX,
            asking: options.rate == 0.0,
        })
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn mark(&self) -> Mark {
        let moment = self.options.watch.moment();
        Mark { at: self.now(), done: self.tally.done, bytes: self.tally.bytes, moment }
    }

    /// Opens all connections, a few at a time. Those that stay idle are each asked once, which makes the proxy give
    /// them all that a connection in use has.
    fn connect_all(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let idle = self.options.work == Work::Idle;
        loop {
            let pending = |c: &&Connection| if idle { !c.answered } else { !c.connected };
            let opened = self.connections.len();
            // Counting all of them each turn would cost more than the handshakes.
            let recent = self.connections.iter().rev().take(4 * WAVE).flatten().filter(pending).count();
            for place in opened..self.options.connections.min(opened + WAVE.saturating_sub(recent)) {
                self.connections.push(None);
                self.open(place)?;
            }
            let complete = self.connections.len() == self.options.connections;
            if complete && !self.connections.iter().flatten().any(|c| pending(&c)) {
                break;
            }
            if began.elapsed() > CONNECT_LIMIT || self.tally.errors > MOST_ERRORS {
                let error = format!("not all connections could be opened: {}", self.tally.error);
                return Err(io::Error::other(error));
            }
            self.turn(Duration::from_millis(100))?;
        }
        if self.options.rate > 0.0 {
            self.asking = true;
            self.next = self.now();
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> io::Result<()> {
        let end = self.now() + time.as_nanos() as u64;
        self.until(|load| load.now() >= end)
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        while !done(self) {
            if self.tally.errors > MOST_ERRORS {
                return Err(io::Error::other(format!("too many errors, the last: {}", self.tally.error)));
            }
            self.turn(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Open loop: what is still under way counts, however late.
    fn last_words(&mut self, report: &mut Value) -> io::Result<()> {
        (self.next, self.asking) = (u64::MAX, true);
        let (end, asked) = (self.now() + LATE.as_nanos() as u64, self.asked + self.due.len() as u64);
        self.until(|load| load.tally.done >= asked || load.now() >= end)?;
        if self.tally.done < asked {
            report["errors"] = json!(self.tally.errors + asked - self.tally.done);
            report["error"] = json!("requests that were due had no answer five seconds later");
        }
        self.latencies(report);
        Ok(())
    }

    fn turn(&mut self, most: Duration) -> io::Result<()> {
        let wait = most.min(Duration::from_nanos(self.next.saturating_sub(self.now())));
        let ready = self.poll.wait(Some(wait))?;
        self.tally.now = self.now();
        for index in 0..ready {
            let (token, writable) = self.poll.event(index);
            self.handle(token as usize, writable)?;
        }
        if self.next <= self.tally.now {
            self.schedule()?;
        }
        Ok(())
    }

    fn schedule(&mut self) -> io::Result<()> {
        let every = (1e9 / self.options.rate) as u64;
        while self.next <= self.tally.now {
            self.due.push_back(self.next);
            self.next += every;
        }
        self.dispatch()
    }

    /// Open loop: gives what is due to the connections that have been free the longest.
    fn dispatch(&mut self) -> io::Result<()> {
        while !self.due.is_empty() {
            let Some(place) = self.free.pop_front() else { return Ok(()) };
            let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { continue };
            if connection.client.free() == 0 {
                continue;
            }
            if let Some(due) = self.due.pop_front() {
                connection.client.ask(due, &mut connection.out);
                self.asked += 1;
                self.flush(place)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, place: usize, writable: bool) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        if !connection.connected && writable {
            connection.connected = true;
            connection.client.begin(&mut connection.out);
        }
        let free = if connection.connected { connection.client.free() } else { 0 };
        let before = self.tally.done;
        let Connection { stream, client, out, .. } = connection;
        let tally = &mut self.tally;
        let ended = match stream.receive(&mut self.buffer, |bytes| client.receive(bytes, out, tally)) {
            Ok(Ok(true)) => None,
            Ok(Ok(false)) if client.is_over() => Some(None),
            Ok(Ok(false)) => Some(Some("the proxy closed the connection".to_owned())),
            Ok(Err(broken)) => Some(Some(broken)),
            Err(error) => Some(Some(error.to_string())),
        };
        connection.answered |= self.tally.done > before;
        if let Some(error) = ended {
            self.connections[place] = None;
            if let Some(error) = error {
                self.tally.failed(error);
            }
            return self.open(place);
        }
        if self.options.rate > 0.0 {
            let more = connection.client.free().saturating_sub(free);
            let first = if connection.asked == 0 { connection.client.free() } else { more };
            connection.asked += first as u64;
            self.free.extend(std::iter::repeat_n(place, first));
            self.flush(place)?;
            return self.dispatch();
        }
        self.ask(place)?;
        self.flush(place)
    }

    /// Closed loop: asks whatever a connection takes.
    fn ask(&mut self, place: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        let total = if self.options.requests > 0 { self.options.requests } else { u64::MAX };
        let each = if self.options.work == Work::Idle { 1 } else { u64::MAX };
        while connection.connected
            && connection.client.free() > 0
            && self.asked < total
            && connection.asked < each
            && self.asking
        {
            // A connection of its own is a part of the request.
            let due = if self.options.work == Work::Close { connection.since } else { self.tally.now };
            connection.client.ask(due, &mut connection.out);
            connection.asked += 1;
            self.asked += 1;
        }
        Ok(())
    }

    fn flush(&mut self, place: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        if !connection.connected {
            return Ok(());
        }
        match connection.out.send(&mut connection.stream).and_then(|run| connection.stream.flush().map(|()| run)) {
            Ok(run) => self.tally.bytes += run,
            // The read that follows tells what happened, and may bring an answer first.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => {
                self.connections[place] = None;
                self.tally.failed(error.to_string());
                return self.open(place);
            }
        }
        let writes = !connection.out.is_empty() || connection.stream.wants_write();
        if writes != connection.writes {
            connection.writes = writes;
            self.poll.change(&connection.stream, place as u64, writes)?;
        }
        Ok(())
    }

    fn open(&mut self, place: usize) -> io::Result<()> {
        if self.tally.errors > MOST_ERRORS {
            return Ok(());
        }
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Several source addresses, so that ports last however many connections there are.
        let source = Ipv4Addr::new(127, 0, 1, 1 + (place % SOURCES) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        match socket.connect(&self.options.target.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let socket = TcpStream::from(socket);
        let stream = match &self.tls {
            Some(config) => {
                let name = ServerName::try_from(certificate::NAME).map_err(io::Error::other)?;
                let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                Stream::Tls(Box::new(tls), socket)
            }
            None => Stream::Plain(socket),
        };
        self.poll.add(&stream, place as u64, true)?;
        self.connections[place] = Some(Connection {
            stream,
            client: self.options.client(),
            out: Output::default(),
            connected: false,
            writes: true,
            answered: false,
            asked: 0,
            since: self.now(),
        });
        Ok(())
    }

    fn report(&self, before: Option<&Mark>, after: &Mark) -> Value {
        let memory = self.options.watch.memory();
        let mut report = json!({
            "total": self.tally.done, "errors": self.tally.errors, "error": self.tally.error,
            "resident": memory.resident, "proportional": memory.proportional, "peak": memory.peak,
        });
        self.latencies(&mut report);
        let Some(before) = before else { return report };
        let cpu = |pick: fn(&Moment) -> u64| pick(&after.moment).saturating_sub(pick(&before.moment)) as f64 / TICKS;
        report["seconds"] = json!((after.at - before.at) as f64 / 1e9);
        report["done"] = json!(after.done - before.done);
        report["bytes"] = json!(after.bytes - before.bytes);
        report["product"] = json!(cpu(|moment| moment.product));
        report["origin"] = json!(cpu(|moment| moment.origin));
        report["load"] = json!(cpu(|moment| moment.own));
        let cores = before.moment.cores.iter().zip(&after.moment.cores);
        report["cores"] = cores.map(|(before, after)| core(before, after)).collect();
        report
    }

    fn latencies(&self, report: &mut Value) {
        let latencies = &self.tally.latencies;
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)] {
            report[name] = json!(latencies.quantile(share) as f64 / 1e3);
        }
        report["max"] = json!(latencies.max() as f64 / 1e3);
    }
}

fn core(before: &Core, after: &Core) -> Value {
    let ticks = |pick: fn(&Core) -> u64| pick(after).saturating_sub(pick(before)) as f64 / TICKS;
    json!({
        "busy": ticks(|core| core.busy), "idle": ticks(|core| core.idle), "stolen": ticks(|core| core.stolen),
    })
}

/// Connections that are being opened at once.
const WAVE: usize = 64;
const SOURCES: usize = 16;
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long an answer is waited for when the time is over.
const LATE: Duration = Duration::from_secs(5);
const MOST_ERRORS: u64 = 100;
