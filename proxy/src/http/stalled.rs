//! Clients that do not read. hyper does not poll an answer's body while it has no room for more, so the body's own timer
//! stands still too; what looks instead is the worker, once a second, at every answer that goes out. One that is past
//! its deadline, or of which nothing has moved for its idle timeout, is cut: over HTTP/1 its connection ends, over HTTP/2
//! its stream is reset. It comes up to two seconds late and never early, and costs a request no timer.
//!
//! What moves is, over HTTP/1, what the socket takes; over HTTP/2, where one still stream may lie among busy ones, what
//! the engine takes of the body. Both take in steps: a client may need a while for what the kernel (HTTP/1, megabytes)
//! or the engine (HTTP/2, one piece of the upstream's) holds for it, and an idle timeout should leave it that while.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::error::Flag;
use crate::exchange::Exchange;

/// The answers of one worker that go out. Each exchange knows its place here and leaves it when it closes.
#[derive(Default)]
pub struct Answers(RefCell<Vec<Outgoing>>);

struct Outgoing {
    exchange: Rc<Exchange>,
    /// How much had moved at a look, and since when it has been that much.
    still: Option<(u64, Instant)>,
}

impl Answers {
    pub fn add(&self, exchange: &Rc<Exchange>) {
        let mut answers = self.0.borrow_mut();
        exchange.place(answers.len());
        answers.push(Outgoing { exchange: exchange.clone(), still: None });
    }

    pub fn remove(&self, place: usize) {
        let mut answers = self.0.borrow_mut();
        if place < answers.len() {
            answers.swap_remove(place);
        }
        if let Some(moved) = answers.get(place) {
            moved.exchange.place(place);
        }
    }

    /// Cuts what its client has left lying too long, and reports what goes on for long.
    pub fn sweep(&self, now: Instant) {
        for outgoing in self.0.borrow_mut().iter_mut() {
            outgoing.exchange.goes_on(now);
            if let Some(flag) = outgoing.overdue(now) {
                outgoing.exchange.cut(flag);
            }
        }
    }
}

impl Outgoing {
    fn overdue(&mut self, now: Instant) -> Option<Flag> {
        if self.exchange.deadline().is_some_and(|deadline| now >= deadline) {
            return Some(Flag::RequestTimeout);
        }
        let moved = self.exchange.moved_outside();
        match self.still {
            Some((before, since)) if before == moved => {
                (now >= since + self.exchange.idle_timeout()).then_some(Flag::IdleTimeout)
            }
            _ => {
                self.still = Some((moved, now));
                None
            }
        }
    }
}

/// What a task carries: the exchange that was opened in it last.
#[derive(Default)]
pub struct Carried(Weak<Exchange>);

impl Carried {
    /// Asked after each poll of what the task does; a cut wakes the task.
    pub fn is_cut(&mut self, connection: &Connection, cx: &mut Context<'_>) -> bool {
        if let Some(opened) = connection.take_opened() {
            opened.carried_by(cx.waker());
            self.0 = Rc::downgrade(&opened);
        }
        let Some(exchange) = self.0.upgrade() else {
            // Its memory would stay as long as this looks at it.
            self.0 = Weak::new();
            return false;
        };
        exchange.is_cut()
    }
}

/// Runs the streams of a client's HTTP/2 connection on the worker's own thread, until they end or are cut.
#[derive(Clone)]
pub struct Streams(Rc<Connection>);

impl Streams {
    pub fn of(connection: &Rc<Connection>) -> Self {
        Self(connection.clone())
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(Stream { future, connection: self.0.clone(), carried: Carried::default() });
    }
}

pin_project! {
    /// Dropped before its end, h2 resets it with CANCEL and forgets what it had queued.
    struct Stream<F> {
        #[pin]
        future: F,
        connection: Rc<Connection>,
        carried: Carried,
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = this.future.poll(cx).map(drop);
        if this.carried.is_cut(this.connection, cx) { Poll::Ready(()) } else { polled }
    }
}
