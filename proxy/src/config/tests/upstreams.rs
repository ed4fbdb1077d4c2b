//! Errors of upstreams.

use super::{SMALL, told};

#[test]
fn every_error_of_an_upstream_names_line_and_field_and_what_would_be_right() {
    told(vec![
        (
            format!("{SMALL}upstreams:\n- name: a\n"),
            &[("4:3: upstreams[0].addresses: ", "is missing; add a list, each host and port")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: []}}\n"),
            &[("4:24: upstreams[0].addresses: ", "is empty; add an address")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [cart]}}\n- {{name: b, addresses: [\"x:0\"]}}\n"),
            &[
                ("4:25: upstreams[0].addresses[0]: ", "`cart` has no port; write a host and a port"),
                ("5:25: upstreams[1].addresses[0]: ", "`x:0` has port 0"),
            ],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: \"x:1\"}}\n"),
            &[("4:24: upstreams[0].addresses: ", "not a list; write a list")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"]}}\n- {{name: a, addresses: [\"x:1\"]}}\n"),
            &[("5:10: upstreams[1].name: ", "`a` is the name of upstreams[0]; give it a name of its own")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a b, addresses: [\"x:1\"]}}\n"),
            &[("4:10: upstreams[0].name: ", "`a b` has a character that no name has")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"], tls: {{cert: c}}}}\n"),
            &[("4:45: upstreams[0].tls.cert: ", "has no `key`")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"], tls: {{key: c}}}}\n"),
            &[("4:44: upstreams[0].tls.key: ", "has no `cert`")],
        ),
        (
            format!("{SMALL}upstreams:\n- {{name: a, addresses: [\"x:1\"], tls: {{serverName: \"a:1\"}}}}\n"),
            &[("4:51: upstreams[0].tls.serverName: ", "write a host without port")],
        ),
    ]);
}
