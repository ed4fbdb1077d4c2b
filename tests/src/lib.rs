//! The harness of the end-to-end promises: one type per role, real sockets on loopback, nothing mocked.
//!
//! `Proxy` is the real program on port 0 in threads of the test's process. `Origin` is an HTTP server with a scripted
//! handler, `Wire` a peer that speaks raw bytes, `Client` a connection to the proxy. Each takes HTTP/1.1 or HTTP/2, so
//! that a promise has one body for both on either side (`Protocol::PAIRS`).

#![forbid(unsafe_code)]

pub mod books;
pub mod by_hand;
pub mod certificates;
pub mod client;
pub mod collector;
pub mod control_plane;
pub mod conventions;
pub mod dir;
pub mod dribble;
pub mod frames;
pub mod fuzz;
pub mod origin;
pub mod peers;
pub mod process;
pub mod proxy;
pub mod storm;
pub mod streams;
pub mod strict;
pub mod wire;

use std::fmt::Debug;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub use books::Books;
pub use certificates::Authority;
pub use client::Client;
pub use collector::Collector;
pub use control_plane::ControlPlane;
pub use dir::Dir;
pub use dribble::Dribble;
pub use origin::Origin;
pub use process::Process;
pub use proxy::Proxy;
pub use streams::Scripted;
pub use strict::Recorder;
pub use wire::Wire;

/// What one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Client's side, upstream's side.
    pub const PAIRS: [(Protocol, Protocol); 4] = [
        (Protocol::Http1, Protocol::Http1),
        (Protocol::Http1, Protocol::Http2),
        (Protocol::Http2, Protocol::Http1),
        (Protocol::Http2, Protocol::Http2),
    ];

    /// The word for it in a configuration's upstream.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
        }
    }
}

/// Runs a test's body once for each pair of protocols: the client's, the upstream's.
pub fn each<F: Future<Output = ()>>(body: impl Fn(Protocol, Protocol) -> F + Sync) {
    beside(Protocol::PAIRS, |(client, upstream)| body(client, upstream));
}

/// Runs a body for each case, a few of them at once: mostly they wait. Each has a thread and a runtime of its own, so that
/// one that blocks holds up no other.
pub fn beside<T: Debug + Send, F: Future<Output = ()>>(
    cases: impl IntoIterator<Item = T>,
    body: impl Fn(T) -> F + Sync,
) {
    let mut cases = cases.into_iter().peekable();
    while cases.peek().is_some() {
        std::thread::scope(|scope| {
            for case in cases.by_ref().take(BESIDE) {
                // Who fails is called by its thread's name.
                let thread = std::thread::Builder::new().name(format!("{case:?}"));
                thread.spawn_scoped(scope, || run(body(case))).expect("a thread");
            }
        });
    }
}

/// Runs a test's body on a runtime of its own, with a generous limit so that a hang fails instead of hanging.
pub fn run<F: Future<Output = ()>>(body: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, body).await.expect("the test did not end in time");
    });
}

/// A port of loopback that nobody uses, for what must be known before it listens. Below those that the kernel hands out.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add((std::process::id() % 1000) as u16 * 11);
        let port = FIRST_PORT + step % PORTS;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// Waits until something holds; the bound is generous, the look frequent, and more so at first.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for look in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(if look < 20 { 1 } else { 10 })).await;
    }
    panic!("never came true: {what}");
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const BESIDE: usize = 4;
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 11_000;
pub const PATIENCE: Duration = Duration::from_secs(60);
