//! The harness of the end-to-end promises: one type per role, real sockets on loopback.

#![forbid(unsafe_code)]
