//! An explanation as a person reads it, and as a script does.

use std::fmt::Write;

use serde_json::{Value, json};
use spanmesh_proxy::config::Mode;
use spanmesh_proxy::rules::sampling::Action;
use spanmesh_proxy::rules::sampling::explain::{Asked, Miss, Outcome, Whose};

use super::live::Share;
use super::{Arrived, Fate, Hop};
use crate::output::aligned;
use crate::policy::rule;
use crate::terminal::{Style, Terminal, tame};

pub fn table(hops: &[Hop], live: Option<&[Share]>, terminal: &Terminal) -> String {
    let mut text = String::new();
    for (place, hop) in hops.iter().enumerate() {
        if place > 0 {
            text.push('\n');
        }
        let title = format!("{} side of {}", side(hop.side), hop.at);
        let _ = writeln!(text, "{}\n  {}", terminal.paint(Style::Bold, &title), sentence(hop));
        captures(&mut text, hop);
        if !hop.explanation.rules.is_empty() {
            rules(&mut text, hop, terminal);
        }
        for boost in &hop.explanation.boosts {
            let found = match &boost.outcome {
                Outcome::Misses(misses) => format!("does not hold: {}", missed(misses)),
                Outcome::Refused(reason) => format!("cannot be used: {reason}"),
                Outcome::Holds | Outcome::NotAsked => {
                    format!("holds: keeps {} of what is not kept", kept(&boost.action))
                }
            };
            let _ = writeln!(text, "  boost {} {}", name(boost), tame(&found));
        }
        if !hop.explanation.keeps.is_empty() {
            let names = hop.explanation.keeps.iter().map(|id| format!("{} of {}", id.rule, id.policy));
            let _ = writeln!(text, "  at its end, if it was not kept: {}", names.collect::<Vec<_>>().join(", "));
        }
        if let Some(share) = live.and_then(|live| live.get(place)) {
            let _ = writeln!(text, "  {}", share.sentence(hop.explanation.decides()));
        }
    }
    text
}

fn captures(text: &mut String, hop: &Hop) {
    for (capture, misses) in &hop.explanation.captures {
        let found = match misses.is_empty() {
            true => "takes it, whatever the rules say, as long as traces are missing to it".to_owned(),
            false => format!("does not take it: {}", missed(misses)),
        };
        let _ = writeln!(text, "  capture {capture} {}", tame(&found));
    }
}

fn rules(text: &mut String, hop: &Hop, terminal: &Terminal) {
    let mut rows = vec![["", "RULE", "POLICY", "BECAUSE OF", "KEEPS", ""].map(str::to_owned).to_vec()];
    for asked in &hop.explanation.rules {
        let mark = if asked.outcome == Outcome::Holds { "→" } else { "" };
        rows.push(vec![
            mark.into(),
            asked.id.rule.to_string(),
            asked.id.policy.to_string(),
            whose(asked.whose).into(),
            kept(&asked.action),
            tame(&outcome(asked)),
        ]);
    }
    for (place, line) in aligned(&rows).lines().enumerate() {
        let asked = place.checked_sub(1).and_then(|at| hop.explanation.rules.get(at));
        let style = match asked.map(|asked| &asked.outcome) {
            Some(Outcome::Holds) => Style::Green,
            Some(Outcome::NotAsked) => Style::Dim,
            Some(Outcome::Refused(_)) => Style::Red,
            Some(Outcome::Misses(_)) | None => Style::Plain,
        };
        let _ = writeln!(text, "  {}", terminal.paint(style, line));
    }
}

/// Who decides, in a sentence.
fn sentence(hop: &Hop) -> String {
    let here = match hop.explanation.decides() {
        Some(asked) => format!("{} decides: {}", name(asked), threshold(&asked.action)),
        None => "no rule matches: it is kept, as far as the proxy's guard allows".into(),
    };
    match (hop.fate, hop.arrived) {
        (Fate::Decided, _) => format!("The trace begins here. {here}"),
        (Fate::Ignored, _) => format!("What it came with does not count (parent: Ignore). {here}"),
        (Fate::Disbelieved, _) => format!("What it came with does not count: strangers are not believed here. {here}"),
        (Fate::Obeyed, Arrived::Kept) => "It came kept, and that holds (parent: Respect). No rule is asked; without a decision:".into(),
        (Fate::Obeyed, Arrived::Dropped) => {
            "It came dropped, and that holds (parent: Respect) unless a boost keeps it from here on. No rule is asked; without a decision:".into()
        }
        (Fate::Obeyed, _) => {
            "What the proxy before has decided holds (parent: Respect). No rule is asked; without a decision:".into()
        }
    }
}

fn threshold(action: &Action) -> String {
    match action {
        Action::Never => "the trace is not kept".into(),
        Action::Always => "the trace is kept (th:0)".into(),
        Action::Threshold(threshold) => {
            format!(
                "the trace is kept if its randomness reaches th:{}, as {} of all do",
                threshold.digits(),
                kept(action)
            )
        }
        Action::RateLimit(limit) if limit.per_proxy => "each proxy computes the threshold from its own rate".into(),
        Action::RateLimit(_) | Action::Adaptive(_) => {
            "the control plane computes the threshold from what all proxies report".into()
        }
    }
}

fn kept(action: &Action) -> String {
    match action {
        Action::Never => "none".into(),
        Action::Always => "all".into(),
        Action::Threshold(threshold) => rule::share(threshold.number()),
        Action::RateLimit(limit) => {
            let whose = if limit.per_proxy { "here" } else { "in the mesh" };
            format!("{}/s {whose}", limit.traces_per_second)
        }
        Action::Adaptive(adaptive) => format!("{} spans/s in the mesh", adaptive.spans_per_second),
    }
}

fn outcome(asked: &Asked) -> String {
    match &asked.outcome {
        Outcome::Holds => "decides".into(),
        Outcome::NotAsked => "is not asked".into(),
        Outcome::Refused(reason) => format!("cannot be used: {reason}"),
        Outcome::Misses(misses) => missed(misses),
    }
}

fn missed(misses: &[Miss]) -> String {
    let one = |miss: &Miss| match miss.found.as_str() {
        "" => format!("{} is not {}", miss.field, miss.wanted),
        found => format!("{} is {found}, not {}", miss.field, miss.wanted),
    };
    misses.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn name(asked: &Asked) -> String {
    format!("{} of {}", asked.id.rule, asked.id.policy)
}

fn side(side: Mode) -> &'static str {
    match side {
        Mode::Inbound => "inbound",
        Mode::Outbound => "outbound",
        Mode::Gateway => "gateway",
    }
}

fn whose(whose: Whose) -> &'static str {
    match whose {
        Whose::OwnForDestination => "caller, for this destination",
        Whose::Destination => "destination",
        Whose::Own => "proxy",
    }
}

pub fn value(hops: &[Hop], live: Option<&[Share]>) -> Value {
    let rule = |asked: &Asked| {
        let misses = match &asked.outcome {
            Outcome::Misses(misses) => misses.as_slice(),
            _ => &[],
        };
        json!({
            "policy": &*asked.id.policy,
            "rule": &*asked.id.rule,
            "generation": asked.id.generation,
            "of": whose(asked.whose),
            "keeps": kept(&asked.action),
            "outcome": match &asked.outcome {
                Outcome::Holds => "holds",
                Outcome::Misses(_) => "misses",
                Outcome::NotAsked => "notAsked",
                Outcome::Refused(_) => "refused",
            },
            "misses": misses.iter().map(miss).collect::<Vec<_>>(),
        })
    };
    let hop = |(place, hop): (usize, &Hop)| {
        let decides = hop.explanation.decides();
        let captures = hop
            .explanation
            .captures
            .iter()
            .map(|(name, misses)| json!({"capture": name, "misses": misses.iter().map(miss).collect::<Vec<_>>()}));
        let keeps = hop.explanation.keeps.iter().map(|id| json!({"policy": &*id.policy, "rule": &*id.rule}));
        json!({
            "side": side(hop.side),
            "at": hop.at,
            "parent": match hop.fate {
                Fate::Decided => "none",
                Fate::Obeyed => "obeyed",
                Fate::Ignored => "ignored",
                Fate::Disbelieved => "disbelieved",
            },
            "decides": decides.filter(|_| hop.fate != Fate::Obeyed).map(rule),
            "threshold": decides.filter(|_| hop.fate != Fate::Obeyed).map(|asked| threshold(&asked.action)),
            "captures": captures.collect::<Vec<_>>(),
            "rules": hop.explanation.rules.iter().map(rule).collect::<Vec<_>>(),
            "boosts": hop.explanation.boosts.iter().map(rule).collect::<Vec<_>>(),
            "keeps": keeps.collect::<Vec<_>>(),
            "live": live.and_then(|live| live.get(place)).map(Share::value),
        })
    };
    json!({"proxies": hops.iter().enumerate().map(hop).collect::<Vec<_>>()})
}

fn miss(miss: &Miss) -> Value {
    json!({"field": miss.field, "wanted": miss.wanted, "found": miss.found})
}
