//! Destinations as the exporter is given them: checked, with their TLS set up, and not yet at work.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderMap, HeaderName};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::dial::{Dial, FieldFile, Fields, secret};
use super::grpc::Grpc;
use super::http::Http;
use super::ledger::Ledger;
use super::parcel::{Envelope, Format};
use super::retry::Limits;
use super::sender::{End, Health, Receiver, Sender};
use super::source::Source;
use crate::config::{
    self, Compression, Delivery, Endpoint, HeaderField, Only, OtlpEncoding, OtlpGrpc, OtlpHttp, Target, UpstreamTls,
    Zipkin,
};
use crate::identity::certs::{CertificateError, PairFiles};
use crate::identity::tls;
use crate::telemetry::sink;

pub enum Destination {
    Lines { name: String, only: Only, target: sink::Target },
    Remote(Box<Remote>),
}

/// A receiver on the network.
pub struct Remote {
    pub name: String,
    pub only: Only,
    pub format: Format,
    pub delivery: Delivery,
    protocol: Protocol,
    dial: Dial,
    fields: Vec<HeaderField>,
    gzip: bool,
}

enum Protocol {
    Http { path: Uri },
    Grpc { origin: Uri },
}

#[derive(Debug)]
pub enum SettingsError {
    Certificate(CertificateError),
    /// What cannot be used, in words.
    Unusable(String),
}

impl Destination {
    pub fn new(config: &config::Destination) -> Result<Self, SettingsError> {
        let (name, only) = (config.name.clone(), config.only.clone());
        Ok(match &config.to {
            Target::File(path) => Self::Lines { name, only, target: sink::Target::File(path.clone()) },
            Target::Stdout => Self::Lines { name, only, target: sink::Target::Stdout },
            Target::OtlpHttp(to) => Self::Remote(Box::new(over_http(name, only, to, &config.delivery)?)),
            Target::OtlpGrpc(to) => Self::Remote(Box::new(over_grpc(name, only, to, &config.delivery)?)),
            Target::Zipkin(to) => Self::Remote(Box::new(over_zipkin(name, only, to, &config.delivery)?)),
        })
    }
}

impl Remote {
    pub fn sender(self, envelope: Arc<Envelope>, source: Source, ledger: Arc<Ledger>, end: End) -> Sender {
        let Self { name, delivery, protocol, dial, fields, gzip, .. } = self;
        let fields = self::fields(&fields);
        let receiver = match protocol {
            Protocol::Http { path } => Receiver::Http(Http { dial, path, fields, gzip, connection: None }),
            Protocol::Grpc { origin } => Receiver::Grpc(Grpc { dial, origin, fields, gzip, connection: None }),
        };
        let Delivery { timeout, backoff, backoff_max, give_up, .. } = delivery;
        let limits = Limits { backoff, backoff_max, give_up };
        Sender { name, source, envelope, receiver, timeout, limits, ledger, end, health: Health::default() }
    }
}

fn over_http(name: String, only: Only, to: &OtlpHttp, delivery: &Delivery) -> Result<Remote, SettingsError> {
    // OTLP specification, "Endpoint URLs for OTLP/HTTP": a general endpoint is a base, one for traces is taken as it is.
    let (endpoint, path) = match (&to.endpoint, &to.traces_endpoint) {
        (Some(base), _) => (base, format!("{}/v1/traces", base.path.trim_end_matches('/'))),
        (None, Some(whole)) if whole.path.is_empty() => (whole, "/".to_owned()),
        (None, Some(whole)) => (whole, whole.path.clone()),
        (None, None) => return Err(SettingsError::Unusable(format!("destination {name} has no endpoint"))),
    };
    let protocol = Protocol::Http { path: uri(&name, &path)? };
    Ok(Remote {
        format: match to.encoding {
            OtlpEncoding::Protobuf => Format::Protobuf,
            OtlpEncoding::Json => Format::Json,
        },
        delivery: delivery.clone(),
        protocol,
        dial: dial(&format!("destination {name}"), endpoint, to.tls.as_ref(), b"http/1.1", delivery.renew)?,
        fields: to.headers.clone(),
        gzip: to.compression == Compression::Gzip,
        name,
        only,
    })
}

fn over_zipkin(name: String, only: Only, to: &Zipkin, delivery: &Delivery) -> Result<Remote, SettingsError> {
    let path = if matches!(to.endpoint.path.as_str(), "" | "/") { "/api/v2/spans" } else { &to.endpoint.path };
    Ok(Remote {
        format: Format::Zipkin,
        delivery: delivery.clone(),
        protocol: Protocol::Http { path: uri(&name, path)? },
        dial: dial(&format!("destination {name}"), &to.endpoint, to.tls.as_ref(), b"http/1.1", delivery.renew)?,
        fields: to.headers.clone(),
        gzip: to.compression == Compression::Gzip,
        name,
        only,
    })
}

fn over_grpc(name: String, only: Only, to: &OtlpGrpc, delivery: &Delivery) -> Result<Remote, SettingsError> {
    let origin = Endpoint { path: String::new(), ..to.endpoint.clone() };
    let protocol = Protocol::Grpc { origin: uri(&name, &origin.to_string())? };
    Ok(Remote {
        format: Format::Protobuf,
        delivery: delivery.clone(),
        protocol,
        dial: dial(&format!("destination {name}"), &to.endpoint, to.tls.as_ref(), b"h2", delivery.renew)?,
        fields: to.headers.clone(),
        gzip: to.compression == Compression::Gzip,
        name,
        only,
    })
}

fn uri(name: &str, text: &str) -> Result<Uri, SettingsError> {
    text.parse()
        .map_err(|error| SettingsError::Unusable(format!("destination {name}: `{text}` cannot be used: {error}")))
}

/// `name` is whom messages are about.
pub fn dial(
    name: &str,
    endpoint: &Endpoint,
    tls: Option<&UpstreamTls>,
    alpn: &[u8],
    renew: Duration,
) -> Result<Dial, SettingsError> {
    let endpoint = endpoint.clone();
    if !endpoint.secure {
        return Ok(Dial { endpoint, tls: None, renew });
    }
    let (mut root, mut pair, mut server) = (None, None, endpoint.address.host.clone());
    if let Some(tls) = tls {
        root = tls.root_file.as_deref();
        if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
            pair = Some(PairFiles { cert: cert.clone(), key: key.clone() });
        }
        server = tls.server_name.clone().unwrap_or(server);
    }
    let server = ServerName::try_from(server.clone()).map_err(|_| {
        SettingsError::Unusable(format!(
            "{name}: `{server}` is no name that a certificate can have; set tls.serverName to one"
        ))
    })?;
    let config = tls::client_config(root, pair.as_ref(), &[alpn]).map_err(SettingsError::Certificate)?;
    Ok(Dial { endpoint, tls: Some((TlsConnector::from(config), server)), renew })
}

/// A field whose variable is not set was warned about, and is left out.
fn fields(fields: &[HeaderField]) -> Fields {
    let (mut fixed, mut files) = (HeaderMap::new(), Vec::new());
    for field in fields {
        let Ok(name) = HeaderName::try_from(field.name.as_str()) else { continue };
        if let Some(path) = &field.file {
            files.push(FieldFile::new(name, path.clone()));
        } else if let Some(value) = field.value.as_ref().or(field.found.0.as_ref()) {
            match secret(value.trim().as_bytes()) {
                Some(value) => drop(fixed.append(name, value)),
                None => tracing::warn!("the header `{name}` is not sent: its value has characters that no header has"),
            }
        }
    }
    Fields::new(fixed, files)
}
