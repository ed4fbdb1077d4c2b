//! `spanmesh policy lint`: everything that a control plane would refuse, and what it accepts though hardly anybody means it.

use std::path::Path;
use std::process::ExitCode;

use lexopt::{Arg, Parser};
use serde_json::{Value, json};
use spanmesh_control_plane::offline::{Found, Policies, review};

use super::{seat, usage, wrong};
use crate::failure::Failure;
use crate::output::{Form, aligned, counted};
use crate::terminal::{Colours, Style, Terminal, tame};

pub fn main(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let (mut found, mut form, mut colours, mut paths) = (Found::default(), Form::Table, Colours::Auto, Vec::new());
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Arg::Value(path) => paths.push(path),
            Arg::Short('o') | Arg::Long("output") => {
                form = Failure::word("policy", parser, "--output", Form::parse, &Form::WORDS)?;
            }
            Arg::Long("colour" | "color") => {
                colours = Failure::word("policy", parser, "--colour", Colours::parse, &Colours::WORDS)?;
            }
            other => return Err(wrong(other.unexpected())),
        }
    }
    if paths.is_empty() {
        return Err(usage("say what to look at: folders, files, or - for standard input"));
    }
    for path in &paths {
        match path == "-" {
            true => found.stream("standard input", std::io::stdin().lock()),
            false => found.add(Path::new(path), true).map_err(Failure::failed)?,
        }
    }
    let findings = look(&Policies::read(found));
    let mut terminal = Terminal::new(colours, None);
    let text = form.write(&findings.value(), || findings.table(&terminal))?;
    terminal.print(&text)?;
    match findings.refused {
        0 => Ok(ExitCode::SUCCESS),
        refused => Err(Failure::Wanting(format!("{} refused", counted(refused, "resource is", "resources are")))),
    }
}

struct Findings {
    accepted: usize,
    refused: usize,
    list: Vec<Finding>,
}

/// One thing that is wrong or odd.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    is_refused: bool,
    resource: String,
    text: String,
}

fn look(policies: &Policies) -> Findings {
    let verdicts = policies.verdicts();
    let accepted = verdicts.iter().filter(|verdict| verdict.accepted).count();
    let mut list = Vec::new();
    for verdict in verdicts.iter().filter(|verdict| !verdict.accepted) {
        let resource = named(&verdict.kind, &verdict.namespace, &verdict.name);
        list.extend(verdict.problems.iter().map(|problem| finding(&verdict.place, &resource, problem, true)));
    }
    for concern in review(policies) {
        let resource = named(&concern.kind, &concern.namespace, &concern.name);
        let text = format!("{}: {}", concern.field, concern.text);
        list.push(finding(&concern.place, &resource, &text, false));
    }
    // What the schema lets pass and a proxy does not would be found at its Nack.
    for (who, reason) in seat::refusals(policies) {
        list.push(finding("", &who, &format!("proxies refuse it: {reason}"), true));
    }
    if verdicts.is_empty() {
        list.push(finding("", "", "there is no resource of spanmesh.io", false));
    }
    list.sort();
    list.dedup();
    Findings {
        accepted,
        refused: verdicts.len() - accepted + list.iter().filter(|one| one.is_by_proxy()).count(),
        list,
    }
}

/// `place` is a file and the first line of a document; a problem may begin with a line of its own.
fn finding(place: &str, resource: &str, problem: &str, is_refused: bool) -> Finding {
    let (file, first) = match place.rsplit_once(':') {
        Some((file, line)) => (file, line.parse().unwrap_or_default()),
        None => (place, 0),
    };
    let own = problem.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
    let (line, text) = match own.and_then(|(line, text)| Some((line.parse().ok()?, text))) {
        Some((line, text)) => (line, text),
        None => (first, problem),
    };
    Finding { file: file.into(), line, is_refused, resource: resource.into(), text: text.into() }
}

fn named(kind: &str, namespace: &str, name: &str) -> String {
    match (namespace, name) {
        (_, "") => kind.to_owned(),
        ("", name) => format!("{kind} {name}"),
        (namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}

impl Finding {
    fn is_by_proxy(&self) -> bool {
        self.is_refused && self.file.is_empty()
    }

    fn place(&self) -> String {
        match (self.file.as_str(), self.line) {
            ("", _) => "-".into(),
            (file, 0) => tame(file),
            (file, line) => format!("{}:{line}", tame(file)),
        }
    }
}

impl Findings {
    fn value(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "severity": if finding.is_refused { "refused" } else { "warning" },
                "file": finding.file,
                "line": finding.line,
                "resource": finding.resource,
                "text": finding.text,
            })
        };
        json!({
            "accepted": self.accepted,
            "refused": self.refused,
            "findings": self.list.iter().map(finding).collect::<Vec<_>>(),
        })
    }

    fn table(&self, terminal: &Terminal) -> String {
        let rows: Vec<_> = self
            .list
            .iter()
            .map(|finding| {
                let word = if finding.is_refused { "refused" } else { "warning" };
                let colon = if finding.resource.is_empty() { "" } else { ": " };
                vec![finding.place(), word.into(), format!("{}{colon}{}", tame(&finding.resource), tame(&finding.text))]
            })
            .collect();
        let mut text = String::new();
        for (line, finding) in aligned(&rows).lines().zip(&self.list) {
            let style = if finding.is_refused { Style::Red } else { Style::Yellow };
            text.push_str(&terminal.paint(style, line));
            text.push('\n');
        }
        let warnings = self.list.iter().filter(|finding| !finding.is_refused).count();
        let warned =
            if warnings > 0 { format!(", {}", counted(warnings, "warning", "warnings")) } else { String::new() };
        text.push_str(&format!("{} good, {} refused{warned}\n", self.accepted, self.refused));
        text
    }
}
