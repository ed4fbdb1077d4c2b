//! Errors of the whole file: what is missing, misspelt, or no number.

use super::{SMALL, told};

#[test]
fn every_error_of_the_whole_file_names_line_and_field_and_what_would_be_right() {
    told(vec![
        // The file as a whole.
        (
            "".into(),
            &[
                ("1:1: version: ", "is missing; add a number"),
                ("1:1: role: ", "is missing; add `sidecar` or `gateway` or `standalone`"),
            ],
        ),
        ("- 1\n".into(), &[("1:1: ", "is a list; write a section")]),
        ("version: 1\nrole: [\n".into(), &[("3:1: ", "is not valid YAML")]),
        ("version: 1\nrole: sidecar\nrole: gateway\n".into(), &[("3:1: role: ", "second time; keep one")]),
        ("version: 2\nrole: sidecar\n".into(), &[("1:10: version: ", "`2` is out of bounds; write `1`")]),
        // Names.
        (
            "version: 1\nrole: sidcar\n".into(),
            &[("2:7: role: ", "did you mean `sidecar`? the words here are `sidecar`, `gateway`, `standalone`")],
        ),
        (
            format!("{SMALL}nodes: {{}}\n"),
            &[("3:1: nodes: ", "is not a field; did you mean `node`? the fields here are `version`, `role`")],
        ),
        (format!("{SMALL}admin:\n  adress: x\n"), &[("4:3: admin.adress: ", "did you mean `address`?")]),
        (
            format!("{SMALL}zzz: 1\nyyy: 2\n"),
            &[("3:1: zzz: ", "is not a field; the fields here are"), ("4:1: yyy: ", "is not a field")],
        ),
        // Scalars.
        (format!("{SMALL}limits:\n"), &[("3:8: limits: ", "is empty; write `{}`")]),
        (format!("{SMALL}limits: 5\n"), &[("3:9: limits: ", "is `5`; write a section")]),
        (
            format!("{SMALL}limits: {{streams: many}}\n"),
            &[("3:19: limits.streams: ", "is `many`; write a whole number")],
        ),
        (format!("{SMALL}limits: {{streams: -1}}\n"), &[("3:19: limits.streams: ", "is `-1`; write a whole number")]),
        (
            format!("{SMALL}limits: {{headerCount: 7}}\n"),
            &[("3:23: limits.headerCount: ", "`7` is out of bounds; write `8` to `1024`")],
        ),
        (format!("{SMALL}limits: {{memoryPercent: 300}}\n"), &[("3:25: limits.memoryPercent: ", "is `300`")]),
        (
            format!("{SMALL}limits: {{headerBytes: 64KB}}\n"),
            &[("3:23: limits.headerBytes: ", "`64KB` has an unknown unit; write bytes: `1024`, `64Ki`")],
        ),
        (format!("{SMALL}limits: {{headerBytes: 2Mi}}\n"), &[("3:23: limits.headerBytes: ", "write `1Ki` to `1Mi`")]),
        (
            format!("{SMALL}limits: {{headerTimeout: 10}}\n"),
            &[("3:25: limits.headerTimeout: ", "`10` has no unit; write a whole number and its unit: `500ms`")],
        ),
        (
            format!("{SMALL}limits: {{headerTimeout: 2h}}\n"),
            &[("3:25: limits.headerTimeout: ", "`2h` is out of bounds; write `1ms` to `1h`")],
        ),
        (format!("{SMALL}workers: 0\n"), &[("3:10: workers: ", "write `1` to `256`")]),
        (format!("{SMALL}workers: 257\n"), &[("3:10: workers: ", "write `1` to `256`")]),
        (
            format!("{SMALL}node: {{serviceVersion: 1.10}}\n"),
            &[("3:24: node.serviceVersion: ", "is `1.1` without quotes, which is not text; write it in quotes")],
        ),
        (format!("{SMALL}node: {{service: \"a\\nb\"}}\n"), &[("3:17: node.service: ", "control character")]),
        (
            format!("{SMALL}admin: {{address: \"127.0.0.1\"}}\n"),
            &[("3:18: admin.address: ", "`127.0.0.1` has no port; write an IP address and a port")],
        ),
        (
            format!("{SMALL}admin: {{address: \"localhost:1\"}}\n"),
            &[("3:18: admin.address: ", "has a name where an IP address is needed")],
        ),
        (
            format!("{SMALL}telemetry: {{log: loud}}\n"),
            &[("3:18: telemetry.log: ", "`loud` is not a log filter; write `off`")],
        ),
        (
            format!("{SMALL}telemetry: {{accessLog: {{to: sdtout}}}}\n"),
            &[("3:29: telemetry.accessLog.to: ", "write `none`, `stdout`")],
        ),
        (
            format!("{SMALL}telemetry: {{metrics: {{port: 1}}}}\n"),
            &[("3:23: telemetry.metrics.port: ", "is not a field; there are no fields here")],
        ),
        (format!("{SMALL}handover: {{socket: \"\"}}\n"), &[("3:20: handover.socket: ", "is empty; write the path")]),
        (format!("{SMALL}telemetry: {{log: \"info,debug\"}}\n"), &[("3:18: telemetry.log: ", "has two levels")]),
        (
            format!("{SMALL}status: {{address: 8080}}\nupstreams: [{{name: 1.10, addresses: [\"x:1\"]}}]\n"),
            &[
                (
                    "3:19: status.address: ",
                    "is `8080` without quotes, which is not text; write an IP address and a port",
                ),
                ("4:20: upstreams[0].name: ", "is `1.1` without quotes, which is not text"),
            ],
        ),
        (format!("{SMALL}drain: {{timeout: 1.5}}\n"), &[("3:18: drain.timeout: ", "`1.5` is not a whole number")]),
    ]);
}
