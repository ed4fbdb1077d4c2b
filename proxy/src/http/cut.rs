//! Ends the upload of an answered HTTP/2 request whose client has left. hyper moves such a body in a task of its own,
//! which waits for room at the peer and then looks neither at the body nor at the answer; so it would wait, and hold the
//! client's connection, for as long as the peer likes. Dropping the task resets the stream.
//!
//! hyper tells nobody which task carries which body. It does poll the body once before it gives the task away, and on that
//! poll the body leaves its `Cut` where the executor finds it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// One request's upload.
#[derive(Clone, Default)]
pub struct Cut(Rc<State>);

#[derive(Default)]
struct State {
    cut: Cell<bool>,
    task: Cell<Option<Waker>>,
}

impl Cut {
    pub fn cut(&self) {
        self.0.cut.set(true);
        if let Some(task) = self.0.task.take() {
            task.wake();
        }
    }
}

/// Runs hyper's tasks of one upstream connection on the worker's own thread.
#[derive(Clone, Default)]
pub struct Uploads(Rc<RefCell<Option<Cut>>>);

impl Uploads {
    /// The body of this upload is being polled: the next task carries it.
    pub fn polled(&self, cut: &Cut) {
        self.0.replace(Some(cut.clone()));
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Uploads {
    fn execute(&self, future: F) {
        // Boxed: it has more than a kilobyte, and on its way into a task, and at the task's end, it is moved several times.
        let future = Box::pin(future);
        match self.0.take() {
            Some(cut) => tokio::task::spawn_local(Upload { future, cut }),
            None => tokio::task::spawn_local(async { drop(future.await) }),
        };
    }
}

struct Upload<F> {
    future: Pin<Box<F>>,
    cut: Cut,
}

impl<F: Future> Future for Upload<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.0.cut.get() || self.future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.cut.0.task.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}
