//! Whether one rule leaves another nothing to decide: whatever the later one matches, the earlier one matches too.

use spanmesh_crds::{Match, Party, PathKind, PathMatch, ValueMatch};

/// Sure only where it says so: templates, say, are compared by their text.
pub fn covers(earlier: Option<&Match>, later: Option<&Match>) -> bool {
    let Some(earlier) = earlier else { return is_free(later) };
    let Some(later) = later else { return false };
    let Match { method, path, host, route, headers, grpc, source, destination, baggage } = earlier;
    // A rule for a destination is asked before those that have none, wherever it stands.
    let is_as_early = destination.is_some() || later.destination.is_none();
    is_as_early
        && same(method, &later.method)
        && path.as_ref().is_none_or(|path| later.path.as_ref().is_some_and(|later| is_path_within(path, later)))
        && host.as_ref().is_none_or(|host| later.host.as_ref().is_some_and(|later| is_host_within(host, later)))
        && same(route, &later.route)
        && has_all(headers, &later.headers, str::eq_ignore_ascii_case)
        && grpc.as_ref().is_none_or(|grpc| {
            later
                .grpc
                .as_ref()
                .is_some_and(|later| same(&grpc.service, &later.service) && same(&grpc.method, &later.method))
        })
        && is_party_within(source.as_ref(), later.source.as_ref())
        && is_party_within(destination.as_ref(), later.destination.as_ref())
        && has_all(baggage, &later.baggage, |one, two| one == two)
}

fn is_free(later: Option<&Match>) -> bool {
    later.is_none_or(|later| later.destination.is_none())
}

fn same(earlier: &Option<String>, later: &Option<String>) -> bool {
    earlier.is_none() || earlier == later
}

fn is_path_within(earlier: &PathMatch, later: &PathMatch) -> bool {
    match (earlier.kind, later.kind) {
        (PathKind::Prefix, PathKind::Exact | PathKind::Prefix) => {
            let prefix = earlier.value.strip_suffix('/').unwrap_or(&earlier.value);
            let rest = later.value.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (PathKind::Prefix, PathKind::Template) => earlier.value == "/",
        _ => earlier == later,
    }
}

fn is_host_within(earlier: &str, later: &str) -> bool {
    let below = earlier.strip_prefix('*').is_some_and(|suffix| {
        let length = later.len().checked_sub(suffix.len());
        length.and_then(|length| later.get(length..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    });
    below || earlier.eq_ignore_ascii_case(later)
}

fn is_party_within(earlier: Option<&Party>, later: Option<&Party>) -> bool {
    let Some(earlier) = earlier else { return true };
    later.is_some_and(|later| same(&earlier.service, &later.service) && same(&earlier.namespace, &later.namespace))
}

fn has_all(earlier: &[ValueMatch], later: &[ValueMatch], is: fn(&str, &str) -> bool) -> bool {
    earlier.iter().all(|asked| {
        later.iter().any(|said| is(&asked.name, &said.name) && (asked.value.is_none() || asked.value == said.value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_leaves_to_later_ones() {
        let read = |text: &str| match text {
            "" => None,
            text => Some(serde_yaml::from_str::<Match>(text).expect(text)),
        };
        for (earlier, later, covered) in [
            ("", "{method: GET}", true),
            ("", "{destination: {service: a}}", false),
            ("{method: GET}", "", false),
            ("{method: GET}", "{method: GET, path: {value: /a}}", true),
            ("{method: GET}", "{method: POST}", false),
            ("{path: {value: /a}}", "{path: {type: Exact, value: /a/b}}", true),
            ("{path: {value: /a}}", "{path: {type: Exact, value: /ab}}", false),
            ("{path: {type: Exact, value: /a}}", "{path: {value: /a}}", false),
            ("{path: {value: /}}", "{path: {type: Template, value: '/a/{id}'}}", true),
            ("{host: '*.shop.example'}", "{host: A.Shop.example}", true),
            ("{host: '*.shop.example'}", "{host: shop.example}", false),
            ("{headers: [{name: X-A}]}", "{headers: [{name: x-a, value: b}]}", true),
            ("{headers: [{name: x-a, value: b}]}", "{headers: [{name: x-a}]}", false),
            ("{grpc: {service: a.B}}", "{grpc: {service: a.B, method: C}}", true),
            ("{destination: {namespace: n}}", "{destination: {service: s, namespace: n}}", true),
            ("{source: {service: s}}", "{source: {namespace: n}}", false),
        ] {
            assert_eq!(covers(read(earlier).as_ref(), read(later).as_ref()), covered, "{earlier} · {later}");
        }
    }
}
