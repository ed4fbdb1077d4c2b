//! Request bodies that can be sent again, and the gate that holds a body back until the origin asked for it.
//!
//! A replayed body keeps what it has read, up to a cap, so that another attempt can start from the first byte. Beyond
//! the cap it forgets and can no longer be repeated. An attempt that was answered early may still be sending when the
//! next one begins, so each attempt takes a turn, and who has lost its turn is cut off.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::body::Upload;
use crate::connection::Connection;
use crate::limit::Limit;

/// A body read once from the client and sent as often as its memory allows.
#[derive(Clone)]
pub struct Replay {
    shared: Rc<RefCell<Shared>>,
    place: usize,
    turn: u32,
}

/// Why a body does not go on.
pub enum Broken {
    /// The client broke off.
    Client(hyper::Error),
    /// Another attempt has its turn.
    Superseded,
}

struct Shared {
    body: Upload,
    length: Option<u64>,
    kept: Vec<Bytes>,
    size: usize,
    cap: usize,
    connection: Rc<Connection>,
    memory: Memory,
    trailers: Option<HeaderMap>,
    ended: bool,
    turn: u32,
    /// Of the attempt whose turn it is.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Keeping,
    /// No longer needed: an attempt was answered.
    Released,
    /// The body grew beyond the cap.
    Overrun,
}

impl Replay {
    /// `connection`: whose worker's memory it takes.
    pub fn new(body: Upload, cap: usize, connection: &Rc<Connection>) -> Self {
        let length = body.size_hint().exact();
        let shared = Shared {
            body,
            length,
            kept: Vec::new(),
            size: 0,
            cap,
            connection: connection.clone(),
            memory: Memory::Keeping,
            trailers: None,
            ended: false,
            turn: 0,
            waker: None,
        };
        Self { shared: Rc::new(RefCell::new(shared)), place: 0, turn: 0 }
    }

    /// The same body from its first byte, for another attempt; `None` when it was too large to be kept.
    pub fn again(&self) -> Option<Self> {
        let shared = self.shared.borrow();
        (shared.memory == Memory::Keeping).then(|| Self { shared: self.shared.clone(), place: 0, turn: shared.turn })
    }

    /// Ends the turn of the attempt so far: it gets nothing more, and takes nothing from the next one.
    pub fn next_turn(&self) {
        let mut shared = self.shared.borrow_mut();
        shared.turn += 1;
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
    }

    /// Lets go of what was kept: no further attempt will be made.
    pub fn release(&self) {
        let mut shared = self.shared.borrow_mut();
        if shared.memory == Memory::Keeping {
            shared.memory = Memory::Released;
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut guard = self.shared.borrow_mut();
        let shared = &mut *guard;
        if self.turn != shared.turn {
            return Poll::Ready(Some(Err(Broken::Superseded)));
        }
        if let Some(bytes) = shared.kept.get(self.place) {
            self.place += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
        }
        if self.place == ENDED {
            return Poll::Ready(None);
        }
        if shared.ended {
            self.place = ENDED;
            return Poll::Ready(shared.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let Poll::Ready(frame) = Pin::new(&mut shared.body).poll_frame(cx) else {
            shared.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match &frame {
            None => shared.ended = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    shared.keep(data, &mut self.place);
                    shared.ended = shared.body.is_end_stream();
                } else if let Some(trailers) = frame.trailers_ref() {
                    shared.ended = true;
                    if shared.memory == Memory::Keeping {
                        shared.trailers = Some(trailers.clone());
                    }
                    self.place = ENDED;
                }
            }
            Some(Err(_)) => shared.memory = Memory::Overrun,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Broken::Client)))
    }

    pub fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        match shared.kept.len() {
            0 => shared.body.is_end_stream(),
            kept => self.place >= kept && shared.ended && (shared.trailers.is_none() || self.place == ENDED),
        }
    }

    pub fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        match shared.length {
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}

impl Shared {
    fn keep(&mut self, data: &Bytes, place: &mut usize) {
        if self.memory != Memory::Keeping {
            if !self.kept.is_empty() {
                self.forget();
                *place = 0;
            }
            return;
        }
        let worker = &self.connection.worker;
        let within = self.size.saturating_add(data.len()) <= self.cap;
        if within && worker.buffers.take(data.len()) {
            self.size += data.len();
            self.kept.push(data.clone());
            *place += 1;
            return;
        }
        if within {
            worker.meters.limited(Limit::BufferedBytes);
        }
        self.memory = Memory::Overrun;
        self.forget();
        *place = 0;
    }

    fn forget(&mut self) {
        self.kept = Vec::new();
        self.connection.worker.buffers.give_back(std::mem::take(&mut self.size));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A worker's share of the memory for bodies that are kept.
pub struct Buffers(Cell<usize>);

impl Buffers {
    pub fn new(bytes: usize) -> Self {
        Self(Cell::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes);
        self.0.set(left.unwrap_or(self.0.get()));
        left.is_some()
    }

    fn give_back(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_add(bytes));
    }
}

/// Holds a request's body back while the client waits for `100 Continue`. It opens when the origin says 100, or when
/// the stated wait has run out; it is refused for good when the final answer came first.
#[derive(Clone)]
pub struct Gate {
    state: Arc<Mutex<GateState>>,
    timer: Rc<RefCell<Pin<Box<Sleep>>>>,
}

#[derive(Default)]
struct GateState {
    verdict: Option<bool>,
    waker: Option<Waker>,
}

/// The half of the gate that the engine's callback for 1xx answers may hold on to.
#[derive(Clone)]
pub struct Opener(Arc<Mutex<GateState>>);

impl Gate {
    pub fn new(wait: Duration) -> Self {
        Self { state: Arc::default(), timer: Rc::new(RefCell::new(Box::pin(tokio::time::sleep(wait)))) }
    }

    pub fn opener(&self) -> Opener {
        Opener(self.state.clone())
    }

    /// Nobody wants the body any more.
    pub fn refuse(&self) {
        settle(&self.state, false);
    }

    /// True when the body may flow, false when it never will.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = state.verdict {
            return Poll::Ready(verdict);
        }
        if self.timer.borrow_mut().as_mut().poll(cx).is_ready() {
            state.verdict = Some(true);
            return Poll::Ready(true);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Opener {
    pub fn open(&self) {
        settle(&self.0, true);
    }
}

fn settle(state: &Mutex<GateState>, verdict: bool) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.verdict.get_or_insert(verdict);
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
}

/// The place behind the trailers.
const ENDED: usize = usize::MAX;
