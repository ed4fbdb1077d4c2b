//! `spanmesh trace`: which trace, from where, and how it is shown.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use http::{HeaderName, HeaderValue};
use lexopt::{Arg, Parser};
use spanmesh_proto::{SpanId, TraceId};

use super::listing::{self, Output};
use super::read::{Held, padded};
use super::source::{self, Server};
use super::span::{Span, by_trace};
use super::tree::Tree;
use super::waterfall::{self, Look};
use crate::failure::Failure;
use crate::terminal::{Colours, Terminal, steers, tame_json};

pub fn main(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let asked = Asked::parse(parser)?;
    let mut terminal = Terminal::new(asked.colours, asked.width);
    let held = match &asked.file {
        Some(file) => source::file(file)?,
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .map_err(Failure::failed)?;
            let url = asked.from.clone().unwrap_or_else(|| source::USUAL.to_owned());
            terminal.status(&format!("asking {url} …"))?;
            let server = Server { url, headers: asked.headers.clone() };
            let held = runtime.block_on(async {
                match asked.trace {
                    Some(trace) => source::fetch(&server, trace).await,
                    None => source::latest(&server).await,
                }
            });
            terminal.status("")?;
            // A name look-up that hangs is left behind.
            runtime.shutdown_background();
            held?
        }
    };
    show(&asked, held, &mut terminal)
}

struct Asked {
    trace: Option<TraceId>,
    file: Option<PathBuf>,
    from: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    list: bool,
    all: bool,
    output: Output,
    colours: Colours,
    width: Option<usize>,
}

impl Asked {
    fn parse(parser: &mut Parser) -> Result<Self, Failure> {
        let mut asked = Self {
            trace: None,
            file: None,
            from: None,
            headers: Vec::new(),
            list: false,
            all: false,
            output: Output::Waterfall,
            colours: Colours::Auto,
            width: None,
        };
        let wrong = |error: lexopt::Error| Failure::usage("trace", error);
        while let Some(argument) = parser.next().map_err(wrong)? {
            match argument {
                Arg::Value(id) if asked.trace.is_none() => {
                    let text = id.to_string_lossy();
                    let trace = padded(text.trim()).and_then(TraceId::from_bytes);
                    asked.trace = Some(trace.ok_or_else(|| {
                        Failure::usage(
                            "trace",
                            format!("`{text}` is no trace id: those have 32 hexadecimal digits, not all of them 0"),
                        )
                    })?);
                }
                Arg::Short('f') | Arg::Long("file") => asked.file = Some(parser.value().map_err(wrong)?.into()),
                Arg::Long("from") => asked.from = Some(parser.value().map_err(wrong)?.to_string_lossy().into_owned()),
                Arg::Long("header") => {
                    let value = parser.value().map_err(wrong)?;
                    let field = value.to_str().and_then(header);
                    let right = "--header takes a name and a value: 'X-Scope-OrgID: team'";
                    asked.headers.push(field.ok_or_else(|| Failure::usage("trace", right))?);
                }
                Arg::Short('l') | Arg::Long("list") => asked.list = true,
                Arg::Short('a') | Arg::Long("all") => asked.all = true,
                Arg::Short('o') | Arg::Long("output") => {
                    asked.output = Failure::word("trace", parser, "--output", Output::parse, &Output::WORDS)?;
                }
                Arg::Long("colour" | "color") => {
                    asked.colours = Failure::word("trace", parser, "--colour", Colours::parse, &Colours::WORDS)?
                }
                Arg::Long("width") => {
                    let value = parser.value().map_err(wrong)?;
                    let width = value.to_str().and_then(|text| text.parse().ok());
                    asked.width =
                        Some(width.ok_or_else(|| Failure::usage("trace", "--width takes a number of columns"))?);
                }
                other => return Err(wrong(other.unexpected())),
            }
        }
        if asked.file.is_some() && asked.from.is_some() {
            return Err(Failure::usage("trace", "--file and --from exclude each other: keep one"));
        }
        Ok(asked)
    }
}

fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

fn show(asked: &Asked, held: Held, terminal: &mut Terminal) -> Result<ExitCode, Failure> {
    if held.broken > 0 {
        eprintln!("spanmesh: {} spans have no usable ids and are left out", held.broken);
    }
    let mut traces = by_trace(held.spans);
    let count = traces.len();
    if asked.list {
        let summaries = listing::summaries(&traces);
        terminal.print(&match asked.output {
            Output::Json => json(&summaries.into()),
            Output::Yaml => yaml(&summaries.into())?,
            Output::Table | Output::Waterfall => listing::summary_table(&summaries),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let found = match asked.trace {
        Some(wanted) => traces.into_iter().find(|(trace, _)| *trace == wanted),
        None => {
            // The very latest may still be on its way.
            let whole = traces.iter().rposition(|(_, spans)| has_parents(spans));
            traces.drain(..).nth(whole.unwrap_or(count.saturating_sub(1)))
        }
    };
    let Some((_, spans)) = found else {
        return Err(Failure::failed(match asked.trace {
            Some(trace) => format!("trace {trace} is not among the {count} that are there; --list shows them"),
            None => "there is no trace yet".to_owned(),
        }));
    };
    let tree = Tree::new(spans);
    let most = if asked.all { usize::MAX } else { MOST };
    terminal.print(&match asked.output {
        Output::Json => json(&listing::trace(&tree)),
        Output::Yaml => yaml(&listing::trace(&tree))?,
        Output::Table => listing::table(&tree),
        Output::Waterfall => {
            let look = Look { width: terminal.width, colours: terminal.colours, most };
            waterfall::draw(&tree, look)
        }
    })?;
    if asked.output == Output::Waterfall && tree.nodes.len() > most {
        terminal.print(&format!("{} of {} spans are drawn; --all draws them all\n", most, tree.nodes.len()))?;
    }
    if asked.trace.is_none() && count > 1 && asked.output == Output::Waterfall {
        terminal.print(&format!("the latest of {count} traces; --list shows them\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// None of its spans has a parent that is missing.
fn has_parents(spans: &[Span]) -> bool {
    let ids: HashSet<SpanId> = spans.iter().map(|span| span.id).collect();
    spans.iter().filter_map(|span| span.parent).all(|parent| ids.contains(&parent))
}

pub fn json(value: &serde_json::Value) -> String {
    // Values that were made here always have a text.
    tame_json(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// Where it would have characters as they are that steer a terminal: JSON, which is YAML too, and has escapes for them.
pub fn yaml(value: &serde_json::Value) -> Result<String, Failure> {
    let text = serde_yaml::to_string(value).map_err(Failure::failed)?;
    Ok(if text.chars().any(|c| steers(c) && c != '\n') { json(value) } else { text })
}

/// Spans that are drawn unless all are asked for.
const MOST: usize = 200;
