//! Asks a control plane's pages.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use lexopt::Parser;
use serde_json::Value;

use crate::failure::Failure;
use crate::http::{Version, ask};
use crate::terminal::{Terminal, tame};

/// Where a control plane has its pages, unless it is told otherwise.
pub const USUAL: &str = "127.0.0.1:14015";

/// The value of `--address`.
pub fn address(command: &'static str, parser: &mut Parser) -> Result<String, Failure> {
    let value = parser.value().map_err(|error| Failure::usage(command, error))?;
    let text = value.to_string_lossy().into_owned();
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(text),
        None => Err(Failure::usage(command, format!("--address takes a host and a port, {USUAL}, not `{text}`"))),
    }
}

/// A page in JSON.
pub fn page(address: &str, path: &str, terminal: &mut Terminal) -> Result<Value, Failure> {
    terminal.status(&format!("asking {address} …"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(Failure::failed)?;
    let answer = runtime.block_on(ask_page(address, path));
    // A name look-up that hangs is left behind.
    runtime.shutdown_background();
    terminal.status("")?;
    answer
}

/// The same, in a runtime that there is.
pub async fn ask_page(address: &str, path: &str) -> Result<Value, Failure> {
    let unreachable = |why: String| {
        Failure::failed(format!(
            "no control plane can be asked at {address}: {why}; is it running? `--address HOST:PORT` asks another: \
             what `spanmesh control-plane run` was given as --admin"
        ))
    };
    let found = tokio::net::lookup_host(address).await.map_err(|error| unreachable(error.to_string()))?;
    let mut refused = None;
    for socket in found {
        let request = Request::get(path).header("host", address).header("accept", "application/json");
        let request = request.body(Full::<Bytes>::default()).map_err(Failure::failed)?;
        match ask(socket, Version::Http1, request, PATIENCE).await {
            Ok(answer) if answer.head.status.is_success() => {
                return serde_json::from_slice(&answer.body).map_err(|_| {
                    Failure::failed(format!("what {address} answers is not JSON; is it a control plane?"))
                });
            }
            Ok(answer) => {
                let said: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
                let status = answer.head.status;
                return Err(Failure::failed(format!("{address} answers {status}: {}", tame(said.trim()))));
            }
            Err(error) => refused = refused.or(Some(error.to_string())),
        }
    }
    Err(unreachable(refused.unwrap_or_else(|| "the name has no address".to_owned())))
}

const PATIENCE: Duration = Duration::from_secs(10);
