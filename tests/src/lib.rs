//! The harness of the end-to-end promises.

#![forbid(unsafe_code)]
