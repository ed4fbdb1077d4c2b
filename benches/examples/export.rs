//! What the sending of spans costs: the exporter's one thread encodes them, compresses them if told to, and sends them to
//! a receiver on loopback that reads and discards.
//!
//!     cargo run --release -p spanmesh-benches --example export
//!
//! The exporter has the first core, everything else the last. The figure is spans for each second of CPU of the
//! exporter's thread, which other programs on the machine disturb least; spans for each second on the wall stand beside.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use spanmesh_proto::{SpanId, TraceId};
use spanmesh_proxy::config;
use spanmesh_proxy::telemetry::metrics::{Registry, family};
use spanmesh_proxy::trace::export::Exporter;
use spanmesh_proxy::trace::export::json::Resource;
use spanmesh_proxy::trace::export::settings::Destination;
use spanmesh_proxy::trace::span::{Batch, Protocol, RouteSource, Side, Span};

fn main() -> Result<(), Box<dyn Error>> {
    for round in 0..3 {
        for (name, fields) in [("plain", ""), ("gzip", "compression: gzip"), ("JSON", "encoding: json")] {
            let (cpu, wall, bytes) = measure(fields)?;
            println!(
                "round {round}, {name}: {:.0} spans a second of CPU, {:.0} on the wall, {bytes:.0} bytes each on the wire",
                1.0 / cpu,
                1.0 / wall
            );
        }
    }
    Ok(())
}

/// Seconds of CPU and on the wall for one span, and its bytes.
fn measure(fields: &str) -> Result<(f64, f64, f64), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let all = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    stay_on(first)?;
    let text = format!(
        "version: 1\nrole: standalone\npolicy: {{destinations: [{{name: there, otlpHttp: {{endpoint: 'http://{address}', \
         {fields}}}}}]}}\n"
    );
    let config = config::parse(&text, "bench.yaml", std::iter::empty()).map_err(|_| "a wrong configuration")?;
    let destinations = config.policy.destinations.iter().map(|to| Destination::new(to).expect("usable")).collect();
    let registry = Registry::new();
    let resource = Resource(vec![("service.name".into(), "cart".into()), ("service.namespace".into(), "shop".into())]);
    let exporter = Exporter::start(destinations, resource, &registry)?;
    stay_on(last)?;
    let receiver = thread::spawn(move || discard(&listener));
    let batches = exporter.batches();
    let exported = registry.shared().counter(family::SPANS_EXPORTED, &["there"]);
    let (begun, mut cpu) = (Instant::now(), 0.0);
    let mut made = 0;
    while made < SPANS {
        // The queue of the destination must not overflow: what is dropped costs as well.
        if made - exported.value() > AHEAD {
            thread::sleep(Duration::from_micros(200));
            continue;
        }
        let batch = batch(made);
        made += batch.len() as u64;
        batches.blocking_send(batch).map_err(|_| "the exporter ended")?;
    }
    // The last request waits for more spans until it is old; the time of that is no work.
    while exported.value() + LAST < made {
        thread::sleep(Duration::from_millis(1));
        cpu = cpu_of("spans")?;
    }
    let (wall, sent) = (begun.elapsed().as_secs_f64(), exported.value() as f64);
    drop(batches);
    exporter.finish(Instant::now() + Duration::from_secs(5));
    assert_eq!(exported.value(), made, "every span arrived");
    let bytes = receiver.join().map_err(|_| "the receiver panicked")??;
    Ok((cpu / sent, wall / sent, bytes as f64 / made as f64))
}

fn stay_on(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Server spans as a gateway makes them.
fn batch(first: u64) -> Batch {
    let mut batch = Batch::default();
    while !batch.is_full() {
        let number = first + batch.len() as u64 + 1;
        let path = format!("/carts/{}/items", mix(number) >> 40);
        let took = mix(number) % 50_000_000;
        let trace = TraceId::from_bytes((u128::from(mix(number)) << 64 | u128::from(mix(!number))).to_be_bytes())
            .expect("an id");
        let id = SpanId::from_bytes(mix(number << 20).to_be_bytes()).expect("an id");
        let span = Span {
            parent: SpanId::from_bytes(mix(number << 21).to_be_bytes()),
            side: Side::Gateway,
            start_nanos: 1_700_000_000_000_000_000 + number * 1000,
            end_nanos: 1_700_000_000_000_000_000 + number * 1000 + took,
            protocol: Some(Protocol::Http11),
            peer: SocketAddr::from(([10, 0, 0, 1], 30_000 + (took % 20_000) as u16)),
            client: [10, 0, 0, 9].into(),
            server: SocketAddr::from(([10, 0, 0, 2], 8080)),
            status: Some(200),
            received: 128,
            method: batch.word(b"GET", 16),
            host: batch.word(b"cart.shop.example", 64),
            path: batch.word(path.as_bytes(), 64),
            query: batch.word(b"page=2", 64),
            route: batch.word(b"/carts/{id}/items", 64),
            route_source: Some(RouteSource::Configured),
            agent: batch.word(b"Mozilla/5.0 (X11; Linux x86_64)", 64),
            ..Span::new(trace, id)
        };
        batch.push(span);
    }
    batch
}

/// As random as ids are: they are what compresses least. The finaliser of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31 | 1
}

/// Answers every request on every connection; the bytes of all bodies.
fn discard(listener: &TcpListener) -> io::Result<u64> {
    let (mut stream, _) = listener.accept()?;
    let (mut bytes, mut bodies) = (vec![0; 1 << 20], 0);
    let mut held = 0;
    loop {
        let read = stream.read(&mut bytes[held..])?;
        if read == 0 {
            return Ok(bodies);
        }
        held += read;
        let Some(head) = bytes[..held].windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        bodies += length as u64;
        skip(&mut stream, &mut bytes, (head + 4 + length).saturating_sub(held))?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        held = 0;
    }
}

fn skip(stream: &mut TcpStream, bytes: &mut [u8], mut left: usize) -> io::Result<()> {
    while left > 0 {
        let take = left.min(bytes.len());
        left -= stream.read(&mut bytes[..take])?.max(1);
    }
    Ok(())
}

/// Seconds of the thread of this name.
fn cpu_of(name: &str) -> Result<f64, Box<dyn Error>> {
    for thread in std::fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        if std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let stat = std::fs::read_to_string(thread.join("schedstat"))?;
            return Ok(stat.split(' ').next().ok_or("an empty schedstat")?.parse::<f64>()? / 1e9);
        }
    }
    Err("there is no such thread".into())
}

const SPANS: u64 = 2_000_000;
/// Spans that are under way at once.
const AHEAD: u64 = 8_000;
/// Of the last request, which may be open.
const LAST: u64 = 512;
