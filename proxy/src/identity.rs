//! Certificates and TLS: what a gateway shows to its clients, and what is demanded of an upstream.
//!
//! `certs` holds the certificates of a listener and chooses one by name, `reload` follows their files, `tls` makes the
//! two rustls configurations, `failure` says in words why a handshake failed. Connections and their limits are not
//! here: `net` and `http` drive the handshakes.

pub mod certs;
pub mod der;
pub mod failure;
pub mod files;
pub mod reload;
pub mod tls;

#[cfg(test)]
mod fixture;
