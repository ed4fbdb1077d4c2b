//! The Spanmesh proxy as a library: everything that `spanmesh-proxy` does, callable from tests and from the `spanmesh` command line.
//!
//! Read `data_path` first: it is the life of a connection and of a request as a list of calls.

#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod handover;
pub mod identity;
pub mod net;
pub mod redirect;
pub mod rules;
pub mod system;
pub mod telemetry;
