//! Errors of the policy, and of what this version does not have.

use super::{SMALL, told};

#[test]
fn every_error_of_a_policy_names_line_and_field_and_what_would_be_right() {
    told(vec![
        // What this version does not have.
        (format!("{SMALL}controlPlane: {{}}\n"), &[("3:15: controlPlane.addresses: ", "is missing; add a list")]),
        (
            format!("{SMALL}policy: {{}}\ncontrolPlane: {{addresses: [\"http://a:1\"]}}\n"),
            &[("4:1: controlPlane: ", "stands beside `policy`; keep one of the two")],
        ),
        (
            format!("{SMALL}controlPlane: {{addresses: []}}\n"),
            &[("3:27: controlPlane.addresses: ", "is empty; write where the control plane is")],
        ),
        (format!("{SMALL}identity: {{x: 1}}\n"), &[("3:1: identity: ", "is not in this version; write `{}`")]),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{}}}}]}}}}}}\n"),
            &[("3:45: policy.sampling.head.rules[0].action: ", "says nothing; write `always: {}`, `never: {}`")],
        ),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{rateLimit: {{}}}}}}]}}}}}}\n"),
            &[("3:57: policy.sampling.head.rules[0].action.rateLimit.tracesPerSecond: ", "is missing; add a rate")],
        ),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{probability: 0}}}}]}}}}}}\n"),
            &[("3:59: policy.sampling.head.rules[0].action.probability: ", "`0` is nothing; write a decimal above 0")],
        ),
        (
            format!("{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{always: {{}}, never: {{}}}}}}]}}}}}}\n"),
            &[("3:45: policy.sampling.head.rules[0].action: ", "says several things; keep one")],
        ),
        (
            format!(
                "{SMALL}policy: {{sampling: {{head: {{rules: [{{action: {{always: {{}}}}}}, {{action: {{never: {{}}}}}}]}}}}}}\n"
            ),
            &[("3:60: policy.sampling.head.rules[1]: ", "is never asked")],
        ),
        (
            format!(
                "{SMALL}policy:\n  sampling:\n    guard: 0\n    keep:\n    - {{when: {{}}}}\n    - {{when: {{errors: {{}}, retries: {{}}}}}}\n    - {{when: {{responseFlags: [upstream_rest]}}}}\n    - {{when: {{httpStatus: ['5xx']}}}}\n"
            ),
            &[
                ("5:12: policy.sampling.guard: ", "`0` is nothing; write a decimal above 0"),
                ("7:14: policy.sampling.keep[0].when: ", "says nothing; write `errors: {}`"),
                ("8:14: policy.sampling.keep[1].when: ", "says several things; keep one"),
                (
                    "9:31: policy.sampling.keep[2].when.responseFlags[0]: ",
                    "is no response flag; did you mean `upstream_reset`",
                ),
                ("10:28: policy.sampling.keep[3].when.httpStatus[0]: ", "`5xx` is no status of HTTP"),
            ],
        ),
        (
            format!(
                "{SMALL}policy:\n  sampling:\n    head:\n      rules:\n      - {{name: a, match: {{method: get, path: {{type: Template, value: /a}}}}, action: {{never: {{}}}}}}\n"
            ),
            &[
                ("7:35: policy.sampling.head.rules[0].match.method: ", "has lower-case letters"),
                ("7:70: policy.sampling.head.rules[0].match.path.value: ", "has no `{name}`"),
            ],
        ),
        (
            format!(
                "{SMALL}policy:\n  sampling:\n    head:\n      rules:\n      - {{name: a, match: {{method: GET, source: {{}}}}, action: {{never: {{}}}}}}\n      - {{name: a, action: {{never: {{}}}}}}\n"
            ),
            &[
                ("7:48: policy.sampling.head.rules[0].match.source: ", "asks for nothing"),
                ("8:16: policy.sampling.head.rules[1].name: ", "`a` is the name of a rule above"),
            ],
        ),
        (
            format!("{SMALL}policy: {{propagation: {{inject: [b3], clear: [w3c, b3]}}}}\n"),
            &[("3:51: policy.propagation.clear[1]: ", "is in `inject` too")],
        ),
        (
            format!("{SMALL}policy: {{propagation: {{extract: [w3c, w3c]}}}}\n"),
            &[("3:39: policy.propagation.extract[1]: ", "`w3c` is there twice")],
        ),
        (
            format!("{SMALL}policy: {{propagation: {{inject: [b4]}}}}\n"),
            &[("3:33: policy.propagation.inject[0]: ", "`b4` is not known here")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{}}}}]}}\n"),
            &[("3:45: policy.destinations[0].otlpGrpc.endpoint: ", "is missing; add a URL")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, zipkin: {{}}}}]}}\n"),
            &[("3:43: policy.destinations[0].zipkin.endpoint: ", "is missing; add a URL")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, otlpHttp: {{}}}}]}}\n"),
            &[("3:45: policy.destinations[0].otlpHttp: ", "leads nowhere; add `endpoint:")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{endpoint: 'http://a/b'}}}}]}}\n"),
            &[("3:56: policy.destinations[0].otlpGrpc.endpoint: ", "has a path, which gRPC sets itself")],
        ),
        (
            format!(
                "{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{endpoint: 'http://a', tls: {{}}, headers: [{{name: x}}]}}}}]}}\n"
            ),
            &[
                ("3:68: policy.destinations[0].otlpGrpc.tls: ", "stands beside an endpoint in clear text"),
                ("3:87: policy.destinations[0].otlpGrpc.headers[0]: ", "exactly one of"),
            ],
        ),
        (
            format!(
                "{SMALL}policy: {{destinations: [{{name: c, otlpGrpc: {{endpoint: 'http://a', headers: [{{name: Host, value: x}}]}}}}]}}\n"
            ),
            &[("3:85: policy.destinations[0].otlpGrpc.headers[0].name: ", "that HTTP itself sets")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c}}]}}\n"),
            &[("3:25: policy.destinations[0]: ", "leads nowhere; add `otlpGrpc:")],
        ),
        (
            format!("{SMALL}policy: {{destinations: [{{name: c, stdout: {{}}, file: {{path: x}}}}]}}\n"),
            &[("3:25: policy.destinations[0]: ", "both `file` and `stdout`")],
        ),
        (
            format!("{SMALL}policy:\n  destinations:\n  - {{name: c, stdout: {{}}}}\n  - {{name: c, stdout: {{}}}}\n"),
            &[("6:12: policy.destinations[1].name: ", "`c` is the name of destinations[0]")],
        ),
    ]);
}
