//! `spanmesh policy diff`: what becomes different, for whom, when one folder takes the place of another.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use lexopt::{Arg, Parser};
use serde_json::{Value, json};
use spanmesh_control_plane::offline::{Found, Policies, SIDECAR, Seat};
use spanmesh_proto::v1;

use super::{ROLES, rule, seat, text, usage, wrong};
use crate::failure::Failure;
use crate::output::{Form, counted};
use crate::terminal::{Colours, Style, Terminal, tame};

pub fn main(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let mut paths = Vec::new();
    let mut one = Seat::default();
    let (mut form, mut colours) = (Form::Table, Colours::Auto);
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Arg::Value(path) if paths.len() < 2 => paths.push(path),
            Arg::Long("service") => one.service = text(parser)?,
            Arg::Long("namespace") => one.namespace = text(parser)?,
            Arg::Long("workload") => one.workload = text(parser)?,
            Arg::Long("account") => one.service_account = text(parser)?,
            Arg::Long("role") => one.role = Failure::word("policy", parser, "--role", role, &ROLES)?,
            Arg::Short('o') | Arg::Long("output") => {
                form = Failure::word("policy", parser, "--output", Form::parse, &Form::WORDS)?;
            }
            Arg::Long("colour" | "color") => {
                colours = Failure::word("policy", parser, "--colour", Colours::parse, &Colours::WORDS)?;
            }
            other => return Err(wrong(other.unexpected())),
        }
    }
    let [old, new] = paths.as_slice() else {
        return Err(usage("say what to compare: the folder as it is, and the folder as it will be"));
    };
    let found = |path: &std::ffi::OsString| {
        let mut found = Found::default();
        found.add(Path::new(path), false).map_err(Failure::failed)?;
        Ok::<_, Failure>(found)
    };
    let before = Policies::read(found(old)?);
    let after = Policies::read(found(old)?).turned(found(new)?);
    let asked = one != Seat::default();
    if asked && one.namespace.is_empty() {
        return Err(usage("--namespace is missing; a proxy is in one"));
    }
    if one.role.is_empty() {
        one.role = SIDECAR.into();
    }
    let views = if asked { of_one(&before, &after, &one) } else { of_all(&before, &after) };
    let count = views.len();
    let changed: Vec<_> = views.into_iter().filter(View::is_changed).collect();
    let mut terminal = Terminal::new(colours, None);
    let value = json!({"looked": count, "changed": changed.iter().map(View::value).collect::<Vec<_>>()});
    let text = form.write(&value, || table(&changed, count, &terminal))?;
    terminal.print(&text)?;
    let refused: Vec<_> = after.verdicts().iter().filter(|verdict| !verdict.accepted).collect();
    for verdict in &refused {
        let goes_on = if verdict.before { "; what it was goes on" } else { "" };
        eprintln!("spanmesh: {} is refused{goes_on}: {}", tame(&verdict.place), tame(&verdict.problems.join("; ")));
    }
    match refused.len() {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Failure::Wanting(format!("{} refused", counted(count, "resource is", "resources are")))),
    }
}

/// What some proxies do, before and after, a line for each thing.
struct View {
    title: String,
    before: Vec<String>,
    after: Vec<String>,
}

fn of_one(before: &Policies, after: &Policies, one: &Seat) -> Vec<View> {
    let mut views = vec![own(before, after, one)];
    if !one.service.is_empty() {
        views.push(callers(before, after, &format!("{}.{}", one.service, one.namespace)));
    }
    views
}

fn of_all(before: &Policies, after: &Policies) -> Vec<View> {
    let mut seats: Vec<_> = before.seats().into_iter().chain(after.seats()).collect();
    seats.sort();
    seats.dedup();
    let mut services: Vec<_> = before.services().into_iter().chain(after.services()).collect();
    services.sort();
    services.dedup();
    let own = seats.iter().map(|seat| own(before, after, seat));
    own.chain(services.iter().map(|service| callers(before, after, service))).collect()
}

fn own(before: &Policies, after: &Policies, seat: &Seat) -> View {
    let lines = |policies: &Policies| lines(&policies.policy(seat), &policies.captures(seat));
    View { title: seat::name(seat), before: lines(before), after: lines(after) }
}

fn callers(before: &Policies, after: &Policies, service: &str) -> View {
    let lines = |policies: &Policies| policies.destination(service).map(|chain| rules(&chain)).unwrap_or_default();
    View { title: format!("callers of {service}"), before: lines(before), after: lines(after) }
}

fn rules(chain: &v1::Chain) -> Vec<String> {
    let mut lines = Vec::new();
    match chain.parent() {
        v1::Parent::Unspecified => {}
        v1::Parent::Respect => lines.push("parent   Respect".to_owned()),
        v1::Parent::Ignore => lines.push("parent   Ignore".to_owned()),
    }
    lines.extend(chain.rules.iter().map(|rule| format!("rule     {}", rule::line(rule))));
    lines.extend(chain.boosts.iter().map(|rule| format!("boost    {}", rule::line(rule))));
    lines.extend(chain.keeps.iter().map(|keep| format!("keep     {}", rule::keep_line(keep))));
    lines
}

fn attribute_line(attribute: &v1::Attribute) -> String {
    use v1::attribute::From;
    let from = match &attribute.from {
        Some(From::RequestHeader(name)) => format!("header {name} of the request"),
        Some(From::ResponseHeader(name)) => format!("header {name} of the answer"),
        Some(From::Baggage(key)) => format!("{key} of the baggage"),
        Some(From::Variable(name)) => format!("variable {name}"),
        Some(From::Value(value)) => format!("`{value}`"),
        None => "nothing".into(),
    };
    if attribute.name.is_empty() { from } else { format!("{}: {from}", attribute.name) }
}

fn lines(policy: &v1::Policy, captures: &[(String, v1::Capture)]) -> Vec<String> {
    let mut lines = policy.sampling.as_ref().map(rules).unwrap_or_default();
    for (name, capture) in captures {
        let asked = rule::conditions(capture.r#match.as_ref());
        lines.push(format!("capture  {name}: {}", if asked.is_empty() { "all".into() } else { asked.join(", ") }));
    }
    lines.extend(policy.attributes.iter().map(|attribute| format!("attribute    {}", attribute_line(attribute))));
    lines.extend(policy.destinations.iter().map(|to| format!("destination  {}", plain(to))));
    lines.extend(policy.redaction.as_ref().map(|redaction| format!("redaction    {}", plain(redaction))));
    lines.extend(policy.propagation.as_ref().map(|propagation| format!("propagation  {}", plain(propagation))));
    lines.extend(policy.untraced.as_ref().map(|untraced| format!("untraced     {}", untraced.kinds.join(", "))));
    lines.extend(policy.edge.as_ref().map(|edge| format!("edge         {}", edge.trust)));
    lines.extend(policy.guard.as_ref().map(|guard| format!("guard        {} spans a second", guard.spans_per_second)));
    lines
}

/// What has many fields, in one line.
fn plain(message: &impl std::fmt::Debug) -> String {
    let text = format!("{message:?}");
    text.split_once(" {").map_or(text.clone(), |(_, fields)| format!("{{{fields}"))
}

impl View {
    fn is_changed(&self) -> bool {
        self.before != self.after
    }

    fn value(&self) -> Value {
        json!({"for": self.title, "before": self.before, "after": self.after})
    }
}

fn table(changed: &[View], count: usize, terminal: &Terminal) -> String {
    let mut text = String::new();
    for view in changed {
        let _ = writeln!(text, "{}", terminal.paint(Style::Bold, &tame(&view.title)));
        for (mark, line) in steps(&view.before, &view.after) {
            let style = match mark {
                '-' => Style::Red,
                '+' => Style::Green,
                _ => Style::Plain,
            };
            let _ = writeln!(text, "{}", terminal.paint(style, &format!("{mark} {}", tame(line))));
        }
        text.push('\n');
    }
    let all = counted(count, "group", "groups");
    match changed.len() {
        0 => text.push_str(&format!("nothing changes for {all} of proxies\n")),
        some => text.push_str(&format!("something changes for {some} of {all} of proxies\n")),
    }
    text
}

/// The shortest way from one list to the other: what stays, what goes, what comes, in order.
fn steps<'a>(before: &'a [String], after: &'a [String]) -> Vec<(char, &'a String)> {
    let width = after.len() + 1;
    // The longest common sequence of what is left, from the end.
    let mut longest = vec![0u32; (before.len() + 1) * width];
    let at = |longest: &[u32], i: usize, j: usize| longest.get(i * width + j).copied().unwrap_or(0);
    for (i, one) in before.iter().enumerate().rev() {
        for (j, two) in after.iter().enumerate().rev() {
            let best = match one == two {
                true => at(&longest, i + 1, j + 1) + 1,
                false => at(&longest, i + 1, j).max(at(&longest, i, j + 1)),
            };
            if let Some(cell) = longest.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j, mut steps) = (0, 0, Vec::new());
    loop {
        match (before.get(i), after.get(j)) {
            (None, None) => return steps,
            (Some(one), Some(two)) if one == two => {
                steps.push((' ', one));
                (i, j) = (i + 1, j + 1);
            }
            (Some(one), two) if two.is_none() || at(&longest, i + 1, j) >= at(&longest, i, j + 1) => {
                steps.push(('-', one));
                i += 1;
            }
            (_, Some(two)) => {
                steps.push(('+', two));
                j += 1;
            }
            (Some(_), None) => return steps,
        }
    }
}

fn role(word: &str) -> Option<String> {
    ROLES.contains(&word).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_keeps_what_stays() {
        let list = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (before, after, expected) in [
            ("", "", ""),
            ("a", "a", " a"),
            ("abc", "ac", " a-b c"),
            ("ac", "abc", " a+b c"),
            ("ab", "ba", "-a b+a"),
            ("a", "b", "-a+b"),
        ] {
            let (before, after) = (list(before), list(after));
            let said: String = steps(&before, &after).iter().map(|(mark, line)| format!("{mark}{line}")).collect();
            assert_eq!(said, expected);
        }
    }
}
