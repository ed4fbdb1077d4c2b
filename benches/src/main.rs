//! `spanmesh-bench origin|load|certificate`: the two ends as programs, for `benches/run`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};
use spanmesh_benches::load::options::{Options, Work};
use spanmesh_benches::origin::{Origin, Speaks};
use spanmesh_benches::{certificate, load};

fn main() -> ExitCode {
    let mut parser = Parser::from_env();
    let outcome = match parser.value().ok().and_then(|word| word.into_string().ok()).as_deref() {
        Some("origin") => origin(parser),
        Some("load") => generate(parser),
        Some("certificate") => write(parser),
        _ => Err("spanmesh-bench origin|load|certificate …".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the ports in the order of its arguments, then serves until it is killed.
fn origin(mut parser: Parser) -> Result<(), Box<dyn Error>> {
    let mut addresses = Vec::new();
    while let Some(argument) = parser.next()? {
        let speaks = match argument {
            Arg::Long("http1") => Speaks::Http1,
            Arg::Long("http2") => Speaks::Http2,
            Arg::Long("tcp") => Speaks::Tcp,
            Arg::Long("spans") => Speaks::Spans,
            _ => return Err(argument.unexpected().into()),
        };
        addresses.push((parser.value()?.parse::<SocketAddr>()?, speaks));
    }
    let origin = Origin::bind(&addresses)?;
    let ports: Vec<_> = origin.addresses()?.iter().map(|address| address.port().to_string()).collect();
    println!("{}", ports.join(" "));
    Ok(origin.run()?)
}

/// Prints one line of JSON.
fn generate(mut parser: Parser) -> Result<(), Box<dyn Error>> {
    let target = parser.value()?.parse()?;
    let work = parser.value()?.string()?;
    let mut options = Options::new(target, Work::named(&work).ok_or("no such work")?);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("connections") => options.connections = parser.value()?.parse()?,
            Arg::Long("streams") => options.streams = parser.value()?.parse()?,
            Arg::Long("size") => options.size = parser.value()?.parse()?,
            Arg::Long("seconds") => options.seconds = parser.value()?.parse()?,
            Arg::Long("warm") => options.warm = parser.value()?.parse()?,
            Arg::Long("rate") => options.rate = parser.value()?.parse()?,
            Arg::Long("requests") => options.requests = parser.value()?.parse()?,
            Arg::Long("settle") => options.settle = parser.value()?.parse()?,
            Arg::Long("tls") => options.tls = Some(parser.value()?.into()),
            Arg::Long("product") => options.watch.product.push(parser.value()?.parse()?),
            Arg::Long("origin") => options.watch.origin.push(parser.value()?.parse()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    println!("{}", load::run(&options)?);
    Ok(())
}

fn write(mut parser: Parser) -> Result<(), Box<dyn Error>> {
    let folder = parser.value()?;
    Ok(certificate::write(Path::new(&folder))?)
}
