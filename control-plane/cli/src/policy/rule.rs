//! Rules in words, as `diff` and `explain` show them.

use spanmesh_proto::v1;

/// What a rule asks, in the order in which it is written; empty is all.
pub fn conditions(written: Option<&v1::Match>) -> Vec<String> {
    let Some(written) = written else { return Vec::new() };
    let v1::Match { method, path, host, route, headers, grpc_service, grpc_method, source, destination, baggage } =
        written;
    let mut said = Vec::new();
    let mut say = |what: &str, text: &str| {
        if !text.is_empty() {
            said.push(format!("{what} {text}"));
        }
    };
    say("method", method);
    match path.as_ref().and_then(|path| path.path.as_ref()) {
        Some(v1::path_match::Path::Exact(path)) => say("path", path),
        Some(v1::path_match::Path::Prefix(path)) => say("path below", path),
        Some(v1::path_match::Path::Template(path)) => say("path like", path),
        None => {}
    }
    say("host", host);
    say("route", route);
    let any = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
    if !grpc_service.is_empty() || !grpc_method.is_empty() {
        say("gRPC", &format!("{}/{}", any(grpc_service), any(grpc_method)));
    }
    for (what, party) in [("from", source), ("to", destination)] {
        if let Some(v1::Party { service, namespace }) = party {
            say(what, &format!("{}.{}", any(service), any(namespace)));
        }
    }
    for (what, fields) in [("header", headers), ("baggage", baggage)] {
        for v1::Field { name, value } in fields {
            match value {
                Some(value) => say(what, &format!("{name}={value}")),
                None => say(what, name),
            }
        }
    }
    said
}

/// What becomes of a trace that a rule decides on.
pub fn action(rule: &v1::Rule) -> String {
    use v1::rule::Action;
    match &rule.action {
        Some(Action::Never(_)) => "never".into(),
        Some(Action::Always(_)) => "always".into(),
        Some(Action::Threshold(threshold)) => part(*threshold),
        Some(Action::RateLimit(limit)) => {
            let whose = if limit.per_proxy { "for each proxy" } else { "in the mesh" };
            format!("{} a second {whose}, {} at once", limit.traces_per_second, limit.burst)
        }
        Some(Action::Adaptive(adaptive)) => {
            format!("as {} spans a second in the mesh allow", adaptive.spans_per_second)
        }
        None => "nothing that this version knows".into(),
    }
}

fn part(threshold: u64) -> String {
    if threshold == 0 { "all of them".into() } else { format!("{} of them", share(threshold)) }
}

/// The part of all that a threshold keeps, as a person would have written it.
pub fn share(threshold: u64) -> String {
    let part = 1.0 - threshold as f64 / (1u64 << 56) as f64;
    if part <= 0.0 {
        return "0".into();
    }
    // Thresholds have about four digits.
    let digits = usize::try_from((3.0 - part.log10().floor()).max(0.0) as u64).unwrap_or(3);
    let text = format!("{part:.digits$}");
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text.as_str() };
    short.to_owned()
}

/// One line.
pub fn line(rule: &v1::Rule) -> String {
    let asked = conditions(rule.r#match.as_ref());
    let asked = if asked.is_empty() { "all".to_owned() } else { asked.join(", ") };
    format!("{} of {}: {asked} → {}", rule.name, rule.policy, action(rule))
}

/// A rule that is asked at the end.
pub fn keep_line(keep: &v1::Keep) -> String {
    let mut asked = Vec::new();
    if keep.errors {
        asked.push("an error".to_owned());
    }
    if keep.grpc_errors {
        asked.push("an error of gRPC".to_owned());
    }
    if !keep.http_status.is_empty() {
        let range = |range: &v1::StatusRange| match range.first == range.last {
            true => range.first.to_string(),
            false => format!("{}-{}", range.first, range.last),
        };
        asked.push(format!("status {}", keep.http_status.iter().map(range).collect::<Vec<_>>().join(", ")));
    }
    if !keep.response_flags.is_empty() {
        asked.push(keep.response_flags.join(", "));
    }
    if keep.latency > 0 {
        asked.push(format!("took {} ms", keep.latency as f64 / 1000.0));
    }
    if keep.retries > 0 {
        asked.push(format!("tried again {}×", keep.retries));
    }
    let limit = format!("{} a second, {} at once", keep.traces_per_second, keep.burst);
    format!("{} of {}: {} → {}, {limit}", keep.name, keep.policy, asked.join(" or "), part(keep.threshold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_read_as_they_were_written() {
        for (threshold, expected) in [
            (0, "1"),
            (1 << 55, "0.5"),
            (0x00f3_3330_0000_0000, "0.05"),
            (0x00fd_70a0_0000_0000, "0.01"),
            (0x00ff_ff58_3a00_0000, "0.00001"),
            (1 << 56, "0"),
        ] {
            assert_eq!(share(threshold), expected, "{threshold:x}");
        }
    }
}
