//! One request through the proxy, all in one process: a tiny origin, the proxy in front of it, a client, and then what
//! the proxy tells of the request.
//!
//!     cargo run --release --example first_request

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;
use spanmesh_proxy::{app, config};

pub fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("spanmesh-first-request-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = show(&folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn show(folder: &Path) -> Result<(), Box<dyn Error>> {
    let (origin, received) = origin()?;
    let text = configuration(origin, folder);
    let config = config::parse(&text, "first_request.yaml", std::iter::empty())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let proxy = app::start(config, false)?;
    let front = proxy.bound.listeners.get("in").copied().ok_or("the listener is not there")?;
    println!("client ──▶ spanmesh-proxy on {front} ──▶ origin on {origin}\n");

    let request = format!("GET /hello?from=readme HTTP/1.1\r\nhost: {front}\r\nconnection: close\r\n\r\n");
    title("The client sends", "to the proxy");
    message(&request);
    let answer = ask(front, &request)?;
    let received = received.join().map_err(|_| "the origin failed")??;
    title("The origin receives", "the proxy began a trace and is the parent of whatever happens behind it");
    message(&received);
    title("The client gets", "the origin's answer as it is");
    message(&answer);

    // A proxy that drains writes down all that it knows before it ends.
    proxy.drain();
    proxy.wait()?;
    title("The proxy logs", "one line for each request; here, one field to a line");
    fields(&first_line(&folder.join("access.log"))?);
    title("The proxy reports a span", "as OTLP; its id is the parent that the origin was told");
    span(&first_line(&folder.join("spans.jsonl"))?);
    Ok(())
}

fn configuration(origin: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "\
version: 1
role: standalone
workers: 1
admin: {{address: '127.0.0.1:0'}}
status: {{address: '127.0.0.1:0'}}
listeners:
- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: hello}}
upstreams:
- {{name: hello, addresses: ['{origin}']}}
drain: {{timeout: 1s, idleGrace: 10ms}}
telemetry:
  log: warn
  accessLog: {{to: '{folder}/access.log'}}
policy:
  destinations:
  - {{name: file, file: {{path: '{folder}/spans.jsonl'}}}}
"
    )
}

/// A server that answers one request; what it received comes back from its thread.
fn origin() -> std::io::Result<(SocketAddr, thread::JoinHandle<std::io::Result<String>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut received = Vec::new();
        let mut chunk = [0; 1024];
        while !received.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            received.extend_from_slice(&chunk[..count]);
        }
        let body = "Hello from the origin.\n";
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        Ok(String::from_utf8_lossy(&received).into_owned())
    });
    Ok((address, thread))
}

fn ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn title(what: &str, note: &str) {
    println!("── {what} ({note})");
}

fn message(text: &str) {
    text.trim_end().lines().for_each(|line| println!("   {line}"));
    println!();
}

fn first_line(path: &PathBuf) -> Result<Value, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    Ok(serde_json::from_str(text.lines().next().ok_or("nothing was written")?)?)
}

fn fields(line: &Value) {
    for (name, value) in line.as_object().into_iter().flatten() {
        println!("   {name:<16}{}", plain(value));
    }
    println!();
}

fn span(line: &Value) {
    let span = &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let time = |name: &str| span[name].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    println!("   {:<28}{}", "name", plain(&span["name"]));
    println!("   {:<28}{}", "kind", if span["kind"] == 2 { "SERVER" } else { "CLIENT" });
    println!("   {:<28}{}", "traceId", plain(&span["traceId"]));
    println!("   {:<28}{}", "spanId", plain(&span["spanId"]));
    println!("   {:<28}{} µs", "duration", time("endTimeUnixNano").saturating_sub(time("startTimeUnixNano")) / 1000);
    for attribute in span["attributes"].as_array().into_iter().flatten() {
        let value = attribute["value"].as_object().and_then(|value| value.values().next());
        println!("   {:<28}{}", plain(&attribute["key"]), value.map(plain).unwrap_or_default());
    }
}

/// Text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
