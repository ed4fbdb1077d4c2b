//! The two ends of a benchmark: a load generator and an origin, both on one thread and one epoll each, both so cheap
//! that the proxy between them is what is measured. What is spoken on a connection is a machine without input or output
//! ([`load::Client`], [`origin::Server`]); the loops own the sockets.
//!
//! `benches/run` starts them; `benches/README.md` tells the method.

#![forbid(unsafe_code)]

pub mod certificate;
pub mod frames;
pub mod histogram;
pub mod load;
pub mod origin;
pub mod output;
pub mod pattern;
pub mod poll;
pub mod stream;
pub mod watch;

/// Why a connection cannot go on, in words for whoever reads the report.
pub type Broken = String;
