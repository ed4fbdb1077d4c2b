//! The Spanmesh proxy as a library: everything that `spanmesh-proxy` does, callable from tests and from the `spanmesh` command line.
//!
//! Read `data_path` first: it is the life of a connection and of a request as a list of calls.

#![forbid(unsafe_code)]

pub mod admin;
mod admission;
pub mod app;
pub mod cli;
mod clients;
pub mod config;
mod connection;
mod data_path;
mod destination;
pub mod discovery;
mod drain;
pub mod error;
mod exchange;
pub mod fuzz;
pub mod handover;
mod http;
pub mod identity;
pub mod limit;
mod meters;
pub mod net;
pub mod redirect;
pub mod rules;
mod shared;
mod sniffing;
pub mod system;
pub mod telemetry;
pub mod trace;
mod trail;
mod tunnel;
mod worker;
