//! The program's arguments.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::{Long, Short, Value};

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run(Options),
    Help,
    Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub source: Source,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// How often thresholds are made anew.
    pub interval: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Dir(PathBuf),
    /// By this kubeconfig, or as kubectl or a pod finds its API server.
    Kube(Option<PathBuf>),
}

pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut command = None;
    let (mut source, mut kubeconfig, mut certificate, mut key) = (None, None, None, None);
    let (mut listen, mut admin) = (LISTEN.to_owned(), ADMIN.to_owned());
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("source") => source = Some(from(&value(&mut parser)?.to_string_lossy())?),
            Long("kubeconfig") => kubeconfig = Some(PathBuf::from(value(&mut parser)?)),
            Long("listen") => listen = value(&mut parser)?.to_string_lossy().into_owned(),
            Long("admin") => admin = value(&mut parser)?.to_string_lossy().into_owned(),
            Long("tls-certificate") => certificate = Some(PathBuf::from(value(&mut parser)?)),
            Long("tls-key") => key = Some(PathBuf::from(value(&mut parser)?)),
            Value(word) if command.is_none() => command = Some(word.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    match command.as_deref() {
        Some("run") => {}
        Some("help") | None => return Ok(Command::Help),
        Some("version") => return Ok(Command::Version),
        Some(other) => return Err(format!("`{other}` is no command; there are run, help and version")),
    }
    let address = |name: &str, text: &str| {
        text.parse().map_err(|_| format!("{name}: `{text}` is no address; write one such as 0.0.0.0:14010"))
    };
    Ok(Command::Run(Options {
        source: match (
            source.ok_or("--source is missing; write --source kube or --source dir:/path/to/folder")?,
            kubeconfig,
        ) {
            (Source::Kube(_), kubeconfig) => Source::Kube(kubeconfig),
            (source, None) => source,
            (_, Some(_)) => return Err("--kubeconfig belongs to --source kube".into()),
        },
        listen: address("--listen", &listen)?,
        admin: address("--admin", &admin)?,
        certificate: match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err("--tls-certificate and --tls-key belong together; write both or none".into()),
        },
        interval: INTERVAL,
    }))
}

fn value(parser: &mut lexopt::Parser) -> Result<OsString, String> {
    parser.value().map_err(|error| error.to_string())
}

fn from(text: &str) -> Result<Source, String> {
    match text.split_once(':') {
        Some(("dir", path)) if !path.is_empty() => Ok(Source::Dir(path.into())),
        None if text == "kube" => Ok(Source::Kube(None)),
        _ => Err(format!("--source: `{text}` is not known here; write kube or dir:/path/to/folder")),
    }
}

pub const HELP: &str = "\
The control plane of Spanmesh: reads policy and pushes to each proxy what concerns it.

Usage: spanmesh-control-plane run --source kube|dir:PATH [OPTIONS]

Commands:
  run      Read the source, serve proxies, follow what changes
  version  Print the version
  help     Print this

Options of run:
  --source kube             The API server of Kubernetes holds the resources; statuses are written there
  --source dir:PATH         The folder of YAML that holds the resources; its changes are followed
  --kubeconfig FILE         How to reach that server [KUBECONFIG, ~/.kube/config, or the pod's service account]
  --listen ADDRESS          Where proxies connect [0.0.0.0:14010]
  --admin ADDRESS           Pages and metrics: / lists them [127.0.0.1:14015]
  --tls-certificate FILE    Proxies connect over TLS; a chain in PEM
  --tls-key FILE            Its key in PEM

Examples:
  spanmesh-control-plane run --source dir:./policies --listen 127.0.0.1:14010
  spanmesh-control-plane run --source kube --kubeconfig ~/.kube/config

SPANMESH_LOG is what is logged to standard error: error, warn, info (as usual), debug.
Exit codes: 0 ended as asked, 1 failed, 2 wrong usage.
";

const LISTEN: &str = "0.0.0.0:14010";
const ADMIN: &str = "127.0.0.1:14015";
const INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Command, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_refused_by_name() {
        let Ok(Command::Run(options)) = of("run --source dir:/p --listen 127.0.0.1:0") else { panic!("is right") };
        assert_eq!(options.source, Source::Dir("/p".into()));
        assert_eq!(options.listen.port(), 0);
        let Ok(Command::Run(options)) = of("run --source kube --kubeconfig /k") else { panic!("is right") };
        assert_eq!(options.source, Source::Kube(Some("/k".into())));
        assert_eq!(of(""), Ok(Command::Help));
        for (line, problem) in [
            ("run", "--source is missing"),
            ("run --source kubernetes", "`kubernetes` is not known here"),
            ("run --source dir:/p --listen here", "`here` is no address"),
            ("run --source dir:/p --tls-key k", "belong together"),
            ("run --source dir:/p --kubeconfig k", "belongs to --source kube"),
            ("walk", "`walk` is no command"),
            ("run --source dir:/p --colour", "--colour"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.contains(problem), "{line}: {error}");
        }
    }
}
