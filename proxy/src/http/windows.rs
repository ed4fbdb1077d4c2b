//! How many bytes an HTTP/2 peer may send ahead of whoever reads them: the windows that a connection opens, and the
//! limit on all of them together.
//!
//! A window is a promise of memory, which a hostile peer makes us keep. So a connection's wide window is drawn from the
//! process's budget and goes back to it with the connection; a connection that finds nothing left works with a narrow
//! one, slower over long distances and sooner stopped by streams that nobody reads. Half of the budget is for upstreams
//! alone: many clients share such a connection, and none of them shall be able to make it narrow for the others.

use std::sync::Arc;

use crate::system::budget::{Budget, Lease};

/// Clones share.
#[derive(Clone, Debug)]
pub struct Windows(pub Arc<Budget>);

/// The windows of one connection, held for as long as it lives.
#[derive(Debug)]
pub struct Window {
    pub connection: u32,
    pub stream: u32,
    _lease: Option<Lease>,
}

impl Windows {
    /// For a client's connection.
    pub fn client(&self) -> Window {
        Self::opened(self.0.take_leaving(WIDE as usize, self.0.all() / 2))
    }

    /// For a connection to an upstream.
    pub fn upstream(&self) -> Window {
        Self::opened(self.0.take(WIDE as usize))
    }

    fn opened(lease: Option<Lease>) -> Window {
        match lease {
            Some(lease) => Window { connection: WIDE, stream: STREAM, _lease: Some(lease) },
            None => Window { connection: NARROW, stream: NARROW_STREAM, _lease: None },
        }
    }
}

/// 64 stalled streams of 240 KiB leave a MiB of a connection's window to the others.
const WIDE: u32 = 16 * 1024 * 1024;
const STREAM: u32 = 240 * 1024;
/// Fifteen stalled streams, each with what the protocol gives a stream that nobody asked about: 20,000 connections, as
/// many as are open at most by default, still hold less than 20 GiB between them when each of them is attacked at once.
const NARROW: u32 = 1024 * 1024;
const NARROW_STREAM: u32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_narrow_when_the_budget_is_used_up_and_wide_again_after() {
        let windows = Windows(Budget::new(4 * WIDE as usize));
        let (first, second) = (windows.client(), windows.client());
        assert_eq!((first.connection, second.connection), (WIDE, WIDE));
        let third = windows.client();
        assert_eq!((third.connection, third.stream), (NARROW, NARROW_STREAM));
        let upstreams = (windows.upstream(), windows.upstream());
        assert_eq!((upstreams.0.connection, upstreams.1.connection), (WIDE, WIDE), "what clients cannot take");
        assert_eq!(windows.upstream().connection, NARROW);
        drop((first, third, upstreams));
        assert_eq!(windows.client().connection, WIDE);
    }
}
