//! Connections to a receiver of spans: its name looked up anew for each, TCP with the proxy's mark, TLS where the
//! endpoint says so; and the header fields that go with every request, whose files are read again when they change.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use rand::RngExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio_rustls::TlsConnector;

use super::retry::Failure;
use crate::config::Endpoint;
use crate::identity::failure::{Peer, TlsFailure};
use crate::net::connect;

/// Where a receiver is and how it is reached.
#[derive(Clone)]
pub struct Dial {
    pub endpoint: Endpoint,
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
    /// How long a connection lives at least.
    pub renew: Duration,
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Dial {
    /// The first of the name's addresses that answers, beginning with any of them. Whoever calls has a limit for the
    /// whole; one address has its own, so that the next one has its turn.
    pub async fn connect(&self) -> Result<Box<dyn Io>, Failure> {
        let address = &self.endpoint.address;
        let found = lookup_host((address.host.as_str(), address.port)).await;
        let found = found.map_err(|error| Failure::Unreachable(format!("{address} has no address ({error})")))?;
        let mut found: Vec<_> = found.collect();
        if found.is_empty() {
            return Err(Failure::Unreachable(format!("{address} has no address")));
        }
        let first = rand::rng().random_range(0..found.len());
        found.rotate_left(first);
        let mut refusal = String::new();
        for socket in found.into_iter().take(ADDRESSES) {
            let stream = match connect::connect(socket, CONNECT, Some(connect::MARK)).await {
                Ok(stream) => stream,
                Err(error) => {
                    refusal = format!("{socket}: {error}");
                    continue;
                }
            };
            let Some((connector, name)) = &self.tls else { return Ok(Box::new(stream)) };
            return match connector.connect(name.clone(), stream).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(Failure::Unreachable(TlsFailure::of(Peer::Upstream, &error).to_string())),
            };
        }
        Err(Failure::Unreachable(refusal))
    }
}

/// Header fields of every request.
pub struct Fields {
    fixed: HeaderMap,
    files: Vec<FieldFile>,
}

/// A field whose value stands in a file.
pub struct FieldFile {
    pub name: HeaderName,
    pub path: PathBuf,
    value: Option<HeaderValue>,
    looked: Option<Instant>,
    said: bool,
}

impl FieldFile {
    pub fn new(name: HeaderName, path: PathBuf) -> Self {
        Self { name, path, value: None, looked: None, said: false }
    }

    /// The contents are compared by reading them: a mounted secret is replaced by turning a symlink, which no time shows.
    /// One that cannot be read leaves the last value in use.
    fn look(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        match read(&self.path) {
            Ok(value) => (self.value, self.said) = (Some(value), false),
            Err(wrong) if !self.said => {
                self.said = true;
                tracing::warn!(file = %self.path.display(), "the value of the header `{}` {wrong}; {}", self.name, match &self.value {
                    Some(_) => "the one that was read before is sent",
                    None => "spans are sent without it until it can be read",
                });
            }
            Err(_) => {}
        }
    }
}

impl Fields {
    pub fn new(fixed: HeaderMap, files: Vec<FieldFile>) -> Self {
        Self { fixed, files }
    }

    pub fn write(&mut self, headers: &mut HeaderMap, now: Instant) {
        for (name, value) in &self.fixed {
            headers.append(name, value.clone());
        }
        for file in &mut self.files {
            file.look(now);
            if let Some(value) = &file.value {
                headers.append(&file.name, value.clone());
            }
        }
    }
}

/// A value that is not to be shown, nor kept in the tables of HTTP/2.
pub fn secret(value: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read(path: &PathBuf) -> Result<HeaderValue, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("is longer than {LARGEST} bytes"));
    }
    secret(bytes.trim_ascii()).ok_or_else(|| "has characters that no header has".to_owned())
}

/// Of one address; a request has 10 s in all by default.
const CONNECT: Duration = Duration::from_secs(3);
/// More than these are not tried for one request.
const ADDRESSES: usize = 4;
/// How often a file is looked at, if there is a request.
const LOOK: Duration = Duration::from_secs(1);
/// The longest value: tokens have a few KiB.
const LARGEST: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_dir::TestDir;

    #[test]
    fn a_file_is_read_again_and_its_last_value_kept() {
        let dir = TestDir::new("field-file");
        let path = dir.join("token");
        let mut fields =
            Fields::new(HeaderMap::new(), vec![FieldFile::new(HeaderName::from_static("x"), path.clone())]);
        let mut now = Instant::now();
        let mut look = |content: Option<&str>| {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => drop(std::fs::remove_file(&path)),
            }
            now += LOOK;
            let mut headers = HeaderMap::new();
            fields.write(&mut headers, now);
            headers.get("x").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(look(None), None);
        assert_eq!(look(Some("a\n")).as_deref(), Some("a"));
        assert_eq!(look(Some("b")).as_deref(), Some("b"));
        assert_eq!(look(Some("b\0")).as_deref(), Some("b"));
        assert_eq!(look(None).as_deref(), Some("b"));
    }
}
