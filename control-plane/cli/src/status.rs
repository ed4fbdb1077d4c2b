//! `spanmesh proxy-status`: which proxies are connected to a control plane, and whether each has what it is to have.

use std::fmt::Write;
use std::process::ExitCode;

use lexopt::{Arg, Parser};
use serde_json::Value;

use crate::control;
use crate::failure::Failure;
use crate::output::{Form, aligned, counted};
use crate::terminal::{Colours, Style, Terminal, tame};

pub fn main(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let wrong = |error: lexopt::Error| Failure::usage("proxy-status", error);
    let (mut name, mut address) = (None, control::USUAL.to_owned());
    let (mut form, mut colours) = (Form::Table, Colours::Auto);
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Arg::Value(value) if name.is_none() => name = Some(value.to_string_lossy().into_owned()),
            Arg::Long("address") => address = control::address("proxy-status", parser)?,
            Arg::Short('o') | Arg::Long("output") => {
                form = Failure::word("proxy-status", parser, "--output", Form::parse, &Form::WORDS)?;
            }
            Arg::Long("colour" | "color") => {
                colours = Failure::word("proxy-status", parser, "--colour", Colours::parse, &Colours::WORDS)?;
            }
            other => return Err(wrong(other.unexpected())),
        }
    }
    let mut terminal = Terminal::new(colours, None);
    let page = control::page(&address, "/proxies", &mut terminal)?;
    let proxies: Vec<&Value> = page["proxies"].as_array().into_iter().flatten().collect();
    let text = match name {
        None => form.write(&page, || table(&page, &proxies, &terminal))?,
        Some(name) => {
            let named: Vec<_> = proxies.into_iter().filter(|proxy| is(proxy, &name)).collect();
            if named.is_empty() {
                let text = format!(
                    "no connected proxy is called {name}; names are a service, service.namespace or a pod, and \
                     `spanmesh proxy-status` lists them"
                );
                return Err(Failure::failed(text));
            }
            let version = page["version"].as_u64().unwrap_or_default();
            let list: Value = named.iter().map(|proxy| (*proxy).clone()).collect();
            form.write(&list, || named.iter().map(|proxy| details(proxy, version)).collect::<Vec<_>>().join("\n"))?
        }
    };
    terminal.print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn is(proxy: &Value, name: &str) -> bool {
    [word(proxy, "service"), word(proxy, "pod"), full(proxy)].iter().any(|known| known == name)
}

fn table(page: &Value, proxies: &[&Value], terminal: &Terminal) -> String {
    let version = page["version"].as_u64().unwrap_or_default();
    if proxies.is_empty() {
        return format!(
            "no proxy is connected; policy is at version {version}\n\
             A proxy connects where its configuration says so: controlPlane: {{addresses: [\"http://HOST:14010\"]}}\n"
        );
    }
    let mut rows = vec![["SERVICE", "POD", "PROXY", "IN STEP", "REFUSED", "LAST REPORT"].map(str::to_owned).to_vec()];
    rows.extend(proxies.iter().map(|proxy| {
        let refused = proxy["refusals"].as_array().map_or(0, Vec::len);
        vec![
            or_dash(full(proxy)),
            or_dash(word(proxy, "pod")),
            or_dash(word(proxy, "proxyVersion")),
            step(proxy, version),
            if refused == 0 { "-".into() } else { refused.to_string() },
            heard(proxy),
        ]
    }));
    let mut text = String::new();
    for (place, line) in aligned(&rows).lines().enumerate() {
        let is_odd = place.checked_sub(1).and_then(|at| proxies.get(at)).is_some_and(|proxy| !in_step(proxy));
        let style = if is_odd { Style::Yellow } else { Style::Plain };
        let _ = writeln!(text, "{}", terminal.paint(style, line));
    }
    let good = proxies.iter().filter(|proxy| in_step(proxy)).count();
    let all = counted(proxies.len(), "proxy", "proxies");
    let _ = writeln!(text, "\n{good} of {all} in step with version {version} of the policy");
    if proxies.iter().any(|proxy| proxy["refusals"].as_array().is_some_and(|list| !list.is_empty())) {
        text.push_str("`spanmesh proxy-status NAME` says what one has refused, and why\n");
    }
    text
}

fn details(proxy: &Value, version: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16}{value}");
    };
    line("service", or_dash(full(proxy)));
    for (name, field) in
        [("pod", "pod"), ("workload", "workload"), ("role", "role"), ("proxy", "proxyVersion"), ("address", "peer")]
    {
        line(name, or_dash(word(proxy, field)));
    }
    line("connected", format!("for {} s", proxy["connectedSeconds"]));
    line("in step", step(proxy, version));
    line("last report", heard(proxy));
    for refusal in proxy["refusals"].as_array().into_iter().flatten() {
        line("refused", format!("{}: {}", word(refusal, "resource"), word(refusal, "reason")));
    }
    for unknown in proxy["unknown"].as_array().into_iter().flatten() {
        line("does not know", tame(unknown.as_str().unwrap_or_default()));
    }
    if !proxy["report"].is_null() {
        let decided = &proxy["decided"];
        let count = |field: &str| decided[field].as_u64().unwrap_or_default();
        line("arrived", format!("decided already: {} kept, {} not", count("arrivedKept"), count("arrivedDropped")));
        line("decided here", format!("by no rule: {}", count("unruled")));
        for rule in decided["rules"].as_array().into_iter().flatten() {
            let (seen, kept) = (&rule["seen"], &rule["kept"]);
            line("", format!("by {} of {}: {seen}, {kept} of them kept", word(rule, "rule"), word(rule, "policy")));
        }
        line("spans", count("spans").to_string());
    }
    text
}

fn step(proxy: &Value, version: u64) -> String {
    let held = proxy["version"].as_u64().unwrap_or_default();
    match proxy["waitingForAnswer"].as_bool() {
        _ if in_step(proxy) => "yes".into(),
        _ if held >= version => "no, it refuses".into(),
        Some(true) => format!("no, it is being told ({held} of {version})"),
        _ => format!("no, it is behind ({held} of {version})"),
    }
}

fn in_step(proxy: &Value) -> bool {
    proxy["inStep"] == true
}

fn heard(proxy: &Value) -> String {
    match proxy["report"]["secondsAgo"].as_u64() {
        Some(seconds) => format!("{seconds} s ago"),
        None => "-".into(),
    }
}

fn full(proxy: &Value) -> String {
    match (word(proxy, "service"), word(proxy, "namespace")) {
        (service, namespace) if namespace.is_empty() => service,
        (service, namespace) => format!("{service}.{namespace}"),
    }
}

fn word(value: &Value, field: &str) -> String {
    tame(value[field].as_str().unwrap_or_default())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}
