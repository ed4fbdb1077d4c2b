//! What the demo's processes say: where they listen when they start, and what of the rest a person should know.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::child::Child;
use crate::failure::Failure;
use crate::terminal::tame;

/// A service says `listening ADDRESS`.
pub async fn listening(child: &mut Child) -> Result<SocketAddr, Failure> {
    let name = child.name.clone();
    let said = async {
        let mut last = String::new();
        while let Some(line) = child.line().await {
            if let Some(address) = line.strip_prefix("listening ").and_then(|address| address.parse().ok()) {
                return Ok(address);
            }
            last = line;
        }
        Err(last)
    };
    started(&name, timeout(START, said).await)
}

/// A proxy says in its log where each of its listeners is, the control plane where its two are, and both that they are ready.
pub async fn ready(child: &mut Child) -> Result<HashMap<String, SocketAddr>, Failure> {
    let name = child.name.clone();
    let said = async {
        let (mut listeners, mut last) = (HashMap::new(), String::new());
        while let Some(line) = child.line().await {
            let told: Value = serde_json::from_str(&line).unwrap_or_default();
            let address = |field: &str| told[field].as_str().and_then(|address| address.parse().ok());
            match told["message"].as_str() {
                Some("listening") => {
                    if let (Some(name), Some(address)) = (told["listener"].as_str(), address("address")) {
                        listeners.insert(name.to_owned(), address);
                    }
                }
                Some("ready") => {
                    let own = [PUSH, ADMIN].into_iter().filter_map(|name| Some((name.to_owned(), address(name)?)));
                    listeners.extend(own);
                    return Ok(listeners);
                }
                _ => last = line,
            }
        }
        Err(last)
    };
    started(&name, timeout(START, said).await)
}

fn started<T>(name: &str, said: Result<Result<T, String>, tokio::time::error::Elapsed>) -> Result<T, Failure> {
    match said {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(last)) => Err(Failure::failed(format!("{name} does not start: {last}"))),
        Err(_) => Err(Failure::failed(format!("{name} does not start within {} s", START.as_secs()))),
    }
}

/// Warnings and errors, and whatever is no line of a log. What is known to hold in a demo is not told.
pub fn worth_telling(who: &str, line: &str) -> Option<String> {
    let Ok(told) = serde_json::from_str::<Value>(line) else {
        return Some(format!("{who}: {}", tame(line)));
    };
    let message = told["message"].as_str()?;
    let level = told["level"].as_str().unwrap_or_default().to_ascii_lowercase();
    let is_trouble = level == "warn" || level == "error";
    (is_trouble && !EXPECTED.iter().any(|begin| message.starts_with(begin)))
        .then(|| format!("{who}: {}", tame(message)))
}

pub const PUSH: &str = "push";
pub const ADMIN: &str = "admin";
/// Everything is on loopback; and when the control plane ends, the demo says so once, for all proxies.
const EXPECTED: [&str; 2] = ["proxies connect without TLS", "the control plane cannot be followed"];
/// A process that takes longer to start does not start.
const START: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_cannot_steer_the_terminal() {
        let told = |line: &str| worth_telling("cart", line);
        assert_eq!(told("thread panicked at \u{1b}[2J\u{7}").as_deref(), Some("cart: thread panicked at ·[2J·"));
        let line = r#"{"level":"WARN","message":"origin said \u001b]0;x\u202e"}"#;
        assert_eq!(told(line).as_deref(), Some("cart: origin said ·]0;x·"));
        assert_eq!(told(r#"{"level":"INFO","message":"ready"}"#), None);
        assert_eq!(told(r#"{"level":"warn","message":"proxies connect without TLS: --tls-"}"#), None);
    }
}
