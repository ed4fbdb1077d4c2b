//! TLS from the configuration: acceptors with certificates that follow their files, and what upstreams are asked with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::StartError;
use crate::config::{Config, ControlPlane, Upstream, UpstreamTls};
use crate::http::client::Tls;
use crate::identity::certs::{CertificateSet, PairFiles};
use crate::identity::reload::LiveCertificates;
use crate::identity::tls;
use crate::trace::export::dial::Dial;
use crate::trace::export::settings;

#[derive(Default)]
pub struct Configured {
    pub acceptors: HashMap<String, TlsAcceptor>,
    /// By listener, for the watch on their files.
    pub live: Vec<(String, Arc<LiveCertificates>)>,
    pub upstreams: HashMap<String, Arc<Tls>>,
}

impl Configured {
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let mut configured = Self::default();
        for listener in &config.listeners {
            let Some(tls) = &listener.tls else { continue };
            let files: Vec<_> = tls.certificates.iter().map(|pair| (pair.cert.clone(), pair.key.clone())).collect();
            let set = CertificateSet::load(&files).map_err(StartError::Certificate)?;
            let live = LiveCertificates::new(set);
            let server = tls::server_config(live.clone(), &[H2, HTTP1]).map_err(StartError::Certificate)?;
            configured.acceptors.insert(listener.name.clone(), TlsAcceptor::from(server));
            configured.live.push((listener.name.clone(), live));
        }
        for upstream in &config.upstreams {
            if let Some(tls) = &upstream.tls {
                configured.upstreams.insert(upstream.name.clone(), Arc::new(connectors(upstream, tls)?));
            }
        }
        Ok(configured)
    }
}

fn connectors(upstream: &Upstream, tls: &UpstreamTls) -> Result<Tls, StartError> {
    let host = upstream.addresses.first().map(|address| address.host.clone());
    let name = tls.server_name.clone().or(host).unwrap_or_default();
    let name = ServerName::try_from(name.clone()).map_err(|_| StartError::Upstream {
        name: upstream.name.clone(),
        text: format!("`{name}` is no name that a certificate can have; set tls.serverName to one"),
    })?;
    let pair = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Some(PairFiles { cert: cert.clone(), key: key.clone() }),
        _ => None,
    };
    let base = tls::client_config(tls.root_file.as_deref(), pair.as_ref(), &[]).map_err(StartError::Certificate)?;
    // The roots are read once; sessions are remembered apart, since one must not be resumed for another protocol.
    let connector = |alpn: &[&[u8]]| {
        let mut config = ClientConfig::clone(&base);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::default();
        TlsConnector::from(Arc::new(config))
    };
    Ok(Tls {
        name,
        http1: connector(&[HTTP1]),
        http2: connector(&[H2]),
        negotiated: connector(&[H2, HTTP1]),
        opaque: connector(&[]),
    })
}

/// How each address of the control plane is reached.
pub fn control_plane(control_plane: &ControlPlane) -> Result<Vec<Dial>, StartError> {
    let ControlPlane { addresses, root_file, server_name, .. } = control_plane;
    let tls = UpstreamTls { root_file: root_file.clone(), server_name: server_name.clone(), ..UpstreamTls::default() };
    let dial = |endpoint| settings::dial("controlPlane", endpoint, Some(&tls), H2, Duration::MAX);
    addresses.iter().map(|endpoint| dial(endpoint).map_err(StartError::from)).collect()
}

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
