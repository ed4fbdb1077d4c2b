//! Errors of listeners.

use super::{listener, told};

#[test]
fn every_error_of_a_listener_names_line_and_field_and_what_would_be_right() {
    told(vec![
        // Addresses that collide.
        (
            listener("mode: inbound\nupstream: app").replace("127.0.0.1:0", "127.0.0.1:14000"),
            &[("7:12: listeners[0].address: ", "127.0.0.1:14000 is taken by admin.address; give each its own port")],
        ),
        // Listeners.
        (
            listener("mode: inbound\nupstream: ap"),
            &[(
                "9:13: listeners[0].upstream: ",
                "`ap` is not an upstream; did you mean `app`? the upstreams are `app`",
            )],
        ),
        (
            listener("mode: inbound"),
            &[("6:3: listeners[0]: ", "leads nowhere; add `upstream` or `routes`, or make it `transparent`")],
        ),
        (
            listener("mode: gateway"),
            &[("6:3: listeners[0]: ", "leads nowhere; add `upstream`, `routes` or `httpsRedirect`")],
        ),
        (
            listener("mode: gateway\ntransparent: true\nupstream: app"),
            &[("9:16: listeners[0].transparent: ", "not for a gateway")],
        ),
        (
            listener("mode: inbound\nupstream: app\ntls: {certificates: [{cert: c, key: k}]}"),
            &[("10:3: listeners[0].tls: ", "is for a gateway; leave it out")],
        ),
        (
            listener("mode: gateway\nupstream: app\ntls: {certificates: []}"),
            &[("10:23: listeners[0].tls.certificates: ", "is empty; add a certificate")],
        ),
        (
            listener("mode: gateway\nupstream: app\nprotocol: tls\ntls: {certificates: [{cert: c, key: k}]}"),
            &[("10:13: listeners[0].protocol: ", "passes TLS through, but `tls` ends it here")],
        ),
        (
            listener("mode: inbound\nupstream: app\nhttpsRedirect: true"),
            &[("10:18: listeners[0].httpsRedirect: ", "is for a gateway")],
        ),
        (
            listener("mode: gateway\nupstream: app\nhttpsRedirect: true\ntls: {certificates: [{cert: c, key: k}]}"),
            &[("10:18: listeners[0].httpsRedirect: ", "nothing to redirect where `tls` is spoken")],
        ),
        (
            listener("mode: gateway\nhttpsRedirect: true\nprotocol: opaque"),
            &[("10:13: listeners[0].protocol: ", "write `detect` or `http`")],
        ),
        (listener("mode: outbound\ntrustedHops: 1"), &[("9:16: listeners[0].trustedHops: ", "is for a gateway")]),
        (
            listener("mode: outbound\ndetectTimeout: 2s"),
            &[("9:18: listeners[0].detectTimeout: ", "`2s` is out of bounds; write `1ms` to `1s`")],
        ),
        (
            listener("mode: outbound\nopaquePorts: [25, 0]"),
            &[("9:21: listeners[0].opaquePorts[1]: ", "is `0`; write a port, 1 to 65535")],
        ),
        (
            listener("mode: outbound\nopaquePorts: [80]\nhttpPorts: [80]"),
            &[("10:15: listeners[0].httpPorts[0]: ", "80 is in `opaquePorts` too")],
        ),
        (listener("mode: outbound\ntrust: continue"), &[("9:10: listeners[0].trust: ", "did you mean `Continue`?")]),
    ]);
}
