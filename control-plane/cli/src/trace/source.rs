//! Where a trace is fetched from: a file or standard input, or the query API of the demo, of Jaeger or of Tempo, which all
//! answer to `GET /api/traces/ID`.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use spanmesh_proto::TraceId;

use super::read::{self, Held};
use crate::failure::Failure;
use crate::http::{Version, ask, ask_securely};

/// Where the page and the query API of the mesh are, the demo's and Jaeger's too.
pub const USUAL: &str = "http://127.0.0.1:16686";

/// All traces in a file; `-` is standard input.
pub fn file(path: &Path) -> Result<Held, Failure> {
    let name = path.display();
    let unreadable = |error| Failure::failed(format!("{name} cannot be read: {error}"));
    let mut bytes = Vec::new();
    match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?,
        false => std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?,
    };
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::failed(format!("{name} is larger than 256 MiB; give a part of it")));
    }
    read::read(&String::from_utf8_lossy(&bytes)).map_err(|why| Failure::failed(format!("{name} {why}")))
}

/// A server that is asked for traces.
pub struct Server {
    pub url: String,
    /// What it wants to be told: a token, a tenant.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// One trace.
pub async fn fetch(server: &Server, trace: TraceId) -> Result<Held, Failure> {
    let from = &server.url;
    match query(server, &format!("/api/traces/{trace}")).await? {
        Some(held) if !held.spans.is_empty() => Ok(held),
        _ => Err(Failure::failed(format!(
            "{from} has no trace {trace}; it may not have arrived yet, may have gone already, or was not sampled"
        ))),
    }
}

/// The latest traces. The demo and Jaeger have such a list; Jaeger wants to be asked for one service.
pub async fn latest(server: &Server) -> Result<Held, Failure> {
    let from = &server.url;
    match query(server, "/api/traces?limit=20").await? {
        Some(held) => Ok(held),
        None => Err(Failure::failed(format!("{from} has no list of traces; give the id of one"))),
    }
}

/// `None` if there is no such thing.
async fn query(server: &Server, path: &str) -> Result<Option<Held>, Failure> {
    let from = &server.url;
    let place = Place::parse(from)?;
    let unreachable = |why: String| {
        Failure::failed(format!(
            "{from} cannot be asked: {why}; is it running? `--from URL` asks another, `--file FILE` reads a file"
        ))
    };
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((place.host.as_str(), place.port))
        .await
        .map_err(|error| unreachable(error.to_string()))?
        .collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut refused = None;
    for address in addresses {
        let mut request = Request::get(format!("{}{path}", place.prefix))
            .header("host", &place.authority)
            .header("accept", "application/json");
        for (name, value) in &server.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::<Bytes>::default()).map_err(Failure::failed)?;
        let asked = match place.secure {
            true => ask_securely(address, &place.host, request, PATIENCE).await,
            false => ask(address, Version::Http1, request, PATIENCE).await,
        };
        match asked {
            Ok(answer) if answer.head.status == 404 || answer.head.status == 204 => return Ok(None),
            Ok(answer) if answer.head.status.is_success() => {
                let text = String::from_utf8_lossy(&answer.body);
                let held = read::read(&text).map_err(|why| Failure::failed(format!("what {from} answers {why}")))?;
                return Ok(Some(held));
            }
            Ok(answer) => {
                let said: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
                let status = answer.head.status;
                return Err(Failure::failed(format!(
                    "{from} answers {status}: {}",
                    crate::terminal::tame(said.trim())
                )));
            }
            // Of several addresses the first is the one that was meant.
            Err(error) => refused = refused.or(Some(error.to_string())),
        }
    }
    Err(unreachable(refused.unwrap_or_else(|| "the name has no address".to_owned())))
}

struct Place {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    /// What comes before `/api`, for a server behind a path.
    prefix: String,
}

impl Place {
    fn parse(from: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::usage("trace", format!("--from {from}: {why}, for example {USUAL}"));
        let uri: Uri = from.parse().map_err(|_| wrong("write a URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("write a URL that begins with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("write a URL with a host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("names and passwords are given with --header"));
        }
        Ok(Self {
            secure,
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST: u64 = 256 << 20;
