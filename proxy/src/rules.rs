//! The decisions of the road: which route, which endpoint, whether to try again, whom to believe.
//!
//! Everything here is pure: time and randomness are arguments, nothing waits, nothing is read or written. State that
//! a decision needs (requests in flight, ejections) lives in cells of the worker that owns it and is never shared.
//! `data_path` asks; the machines (`net`, `http`) act.

pub mod balance;
mod budget;
pub mod flood;
pub mod forwarded;
pub mod health;
pub mod matcher;
mod path;
pub mod progress;
pub mod retry;
pub mod route;
pub mod sampling;
pub mod template;
pub mod untraced;
