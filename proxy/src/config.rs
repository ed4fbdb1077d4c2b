//! The configuration: one YAML file, overridden by the environment, checked as a whole and immutable from then on.
//!
//! `app` loads it once; every part of the program then takes the section that is its own. Nothing else reads the environment.
//! Each section is declared once (`model`, `listener`, `upstream`, `policy`, `attributes`) in the language of `schema`; `CONFIGURATION.md` is written from
//! the same declarations. Reading collects everything that is wrong, and a second pass finds the lines.

mod attributes;
mod control_plane;
mod exporter;
mod forms;
mod grammar;
mod listener;
mod log_format;
mod manners;
mod model;
mod otel;
mod policy;
mod problem;
pub mod pushed;
mod reader;
mod reference;
mod sampling;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod upstream;
mod validate;
mod variables;
mod yaml;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use problem::Finding;
use reader::Reader;
use schema::Form;
use tree::{FieldPath, Tree};
use variables::Origins;

pub use attributes::{Attribute, GrpcCode, GrpcErrors, Pattern, Redaction};
pub use control_plane::ControlPlane;
pub use grammar::{Address, Endpoint, Network};
pub use listener::{
    AnswerTrace, Certificate, Listener, ListenerProtocol, ListenerTls, Mode, Retry, RetryOn, Route, RouteMatch, Trust,
    TrustClients, Underscores,
};
pub use log_format::{LOG_FIELDS, LogField, LogFormat, LogPiece, Logged};
pub use model::{
    AccessLog, Admin, Config, Drain, Handover, Limits, LogTarget, Metrics, Node, OwnerKind, Role, Status, Telemetry,
};
pub use policy::{
    Compression, Delivery, Destination, Format, Found, HeaderField, Only, OnlyAttribute, OtlpEncoding, OtlpGrpc,
    OtlpHttp, Policy, Propagation, Spill, Target, Untraced, Zipkin,
};
pub use problem::{Place, Problem};
pub use reference::reference;
pub use sampling::{
    Adaptive, BaggageMatch, Boost, BoostAction, GrpcMatch, Guard, HeadRule, HeadSampling, HeaderMatch, Keep, KeepLimit,
    KeepOn, Match, ParentDecision, Party, PathKind, PathMatch, RateLimit, Sampling, SamplingAction, StatusRange,
};
pub use source::{Adopted, Source};
pub use upstream::{Upstream, UpstreamProtocol, UpstreamTls};

/// Reads the file and lays the environment over it.
pub fn load(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Config, Vec<Problem>> {
    Source::new(path, environment).load()
}

/// Reads a configuration; `file` is what messages call it.
pub fn parse(
    text: &str,
    file: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Vec<Problem>> {
    if text.len() > MAX_FILE {
        return Err(vec![whole_file(file, TOO_LARGE.into(), SMALLER.into())]);
    }
    let environment: Vec<(String, String)> = environment.collect();
    let mut tree = yaml::parse(text).map_err(|refusal| vec![not_yaml(file, refusal)])?;
    if tree == Tree::Null {
        tree = Tree::Map(Vec::new());
    }
    let mut problems = Vec::new();
    let mut origins = variables::apply(&mut tree, Config::table, &environment, &mut problems);
    let (mut warnings, resource) = otel::fill(&mut tree, &environment, &mut origins);
    warnings.extend(exporter::fill(&mut tree, &environment, &mut origins));
    warnings.extend(manners::fill(&mut tree, &environment, &mut origins));

    let mut reader = Reader::default();
    let config = Config::read(&mut reader, &tree);
    refuse_two_policies(&mut reader, &tree);
    if let Some(mut config) = config.filter(|_| reader.count() == 0) {
        warnings.extend(policy::find_variables(&mut config.policy, &environment));
        validate::validate(&config, &mut reader);
        if problems.is_empty() && reader.count() == 0 {
            warnings.extend(validate::warnings(&config));
            return Ok(Config { warnings, resource, ..config });
        }
    }
    let (findings, unsaid) = reader.finish();
    problems.extend(findings.into_iter().map(|finding| placed(finding, text, file, &origins)));
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    if unsaid > 0 {
        problems.push(whole_file(file, format!("has {unsaid} more problems"), "mend those above first".into()));
    }
    Err(problems)
}

/// What `check-config` prints when the file is right, warnings included.
pub fn check(path: &Path) -> Result<String, Vec<Problem>> {
    let config = load(path, environment())?;
    let file = path.display();
    let warnings: String = config.warnings.iter().map(|warning| format!("{file}: warning: {warning}\n")).collect();
    Ok(format!("{warnings}{file}: ok ({})", config.summary()))
}

/// The environment of this process. What is not UTF-8 is kept with replacement characters, so that it is refused where it matters
/// and does not end the process where it does not.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

impl Config {
    /// The configuration as a file that reads back to the same, with every default written out.
    pub fn to_yaml(&self) -> String {
        yaml::write(&Config::write(self))
    }

    /// The same without secrets, for who may look and not know.
    pub fn to_shown_yaml(&self) -> String {
        let mut shown = self.clone();
        let fields = shown.policy.destinations.iter_mut().flat_map(|destination| destination.to.headers_mut());
        fields.filter_map(|field| field.value.as_mut()).for_each(|value| *value = HIDDEN.into());
        shown.to_yaml()
    }

    fn summary(&self) -> String {
        let routes = self.listeners.iter().map(|listener| listener.routes.len()).sum();
        [(self.listeners.len(), "listener"), (routes, "route"), (self.upstreams.len(), "upstream")]
            .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
            .join(", ")
    }
}

fn read(path: &Path) -> Result<String, (String, String)> {
    let unreadable =
        |error: std::io::Error| (format!("cannot be read: {error}"), "name a file that this user may read".into());
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, to know a larger file from one that just fits.
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE {
        return Err((TOO_LARGE.into(), SMALLER.into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        (format!("is not UTF-8 in line {line}"), "save it as UTF-8".into())
    })
}

/// A control plane pushes the policy; the file has it only where there is no control plane.
fn refuse_two_policies(reader: &mut Reader, tree: &Tree) {
    let Tree::Map(entries) = tree else { return };
    if schema::entry(entries, "policy").is_some() && schema::entry(entries, "controlPlane").is_some() {
        reader.needless_field(
            "controlPlane",
            "stands beside `policy`",
            "keep one of the two: the control plane pushes the policy",
        );
    }
}

fn placed(finding: Finding, text: &str, file: &str, origins: &Origins) -> Problem {
    let Finding { path, at_name, wrong, right } = finding;
    let place = match origins.of(&path) {
        Some(variable) => Place::Variable(variable.into()),
        None => {
            let (line, column) = yaml::locate(text, &path, at_name);
            Place::Spot { file: file.into(), line, column }
        }
    };
    Problem { place, field: path.to_string(), wrong, right }
}

fn not_yaml(file: &str, refusal: yaml::Refusal) -> Problem {
    let place = Place::Spot { file: file.into(), line: refusal.line, column: refusal.column };
    Problem { place, field: FieldPath::to_string(&refusal.path), wrong: refusal.wrong, right: refusal.right }
}

fn whole_file(file: &str, wrong: String, right: String) -> Problem {
    Problem { place: Place::File(file.into()), field: String::new(), wrong, right }
}

/// Largest file: a thousand times what a sidecar needs, and small enough to be read at once.
const MAX_FILE: usize = 1 << 20;
/// In place of a secret.
const HIDDEN: &str = "REDACTED";
const TOO_LARGE: &str = "is larger than 1 MiB";
const SMALLER: &str = "write a smaller file";

/// Arbitrary bytes, the file and then `NAME=VALUE` variables with NUL between them, are a configuration that reads back to itself
/// or problems that say something.
pub fn fuzz_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let variables =
        parts.filter_map(|part| part.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
    match parse(file, "fuzz.yaml", variables) {
        Ok(config) => {
            let mut again = parse(&config.to_yaml(), "again.yaml", std::iter::empty());
            if let Ok(again) = &mut again {
                again.warnings.clone_from(&config.warnings);
                again.resource.clone_from(&config.resource);
            }
            assert_eq!(again, Ok(config));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| !problem.wrong.is_empty() && !problem.right.is_empty()));
            assert!(problems.iter().all(|problem| !problem.to_string().contains('\n')));
        }
    }
}
