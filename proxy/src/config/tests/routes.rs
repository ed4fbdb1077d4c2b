//! Errors of routes.

use super::{listener, route, told};

#[test]
fn every_error_of_a_route_names_line_and_field_and_what_would_be_right() {
    told(vec![
        (route("upstream: ap"), &[("11:15: listeners[0].routes[0].upstream: ", "did you mean `app`?")]),
        (
            route("upstream: app\nmatch: {path: /a, pathPrefix: /a}"),
            &[("12:23: listeners[0].routes[0].match.pathPrefix: ", "stands beside `path`; keep one of")],
        ),
        (
            route("upstream: app\nmatch: {path: cart}"),
            &[("12:19: listeners[0].routes[0].match.path: ", "`cart` does not begin with `/`")],
        ),
        (
            route("upstream: app\nmatch: {path: \"/{id}\"}"),
            &[("12:19: listeners[0].routes[0].match.path: ", "as only a `pathTemplate` has")],
        ),
        (
            route("upstream: app\nmatch: {host: \"shop:80\"}"),
            &[("12:19: listeners[0].routes[0].match.host: ", "write a host without port")],
        ),
        (
            route("upstream: app\nmatch: {method: get}"),
            &[("12:21: listeners[0].routes[0].match.method: ", "`get` has lower-case letters")],
        ),
        (
            route("upstream: app\nmatch: {headers: {\"a b\": x}}"),
            &[("12:30: listeners[0].routes[0].match.headers.a b: ", "is not a header's name")],
        ),
        (
            route("upstream: app\nmatch: {headers: {a: x, A: y}}"),
            &[("12:29: listeners[0].routes[0].match.headers.A: ", "for the second time")],
        ),
        (
            route("upstream: app\nmatch: {headers: {a: 5}}"),
            &[("12:26: listeners[0].routes[0].match.headers.a: ", "write it in quotes")],
        ),
        (
            route("upstream: app\nretry: {attempts: 11}"),
            &[("12:23: listeners[0].routes[0].retry.attempts: ", "write `1` to `10`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 0}"),
            &[("12:23: listeners[0].routes[0].retry.attempts: ", "write `1` to `10`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, on: [\"200\"]}"),
            &[("12:31: listeners[0].routes[0].retry.on[0]: ", "`200` is not known here; write `connectFailure`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, on: []}"),
            &[("12:30: listeners[0].routes[0].retry.on: ", "is empty, so nothing is tried again")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, on: [reset, timeout]}"),
            &[("12:38: listeners[0].routes[0].retry.on[1]: ", "waits for `attemptTimeout`")],
        ),
        (
            route("upstream: app\ntimeout: 1s\nretry: {attempts: 1, attemptTimeout: 2s}"),
            &[("13:42: listeners[0].routes[0].retry.attemptTimeout: ", "longer than the route's `timeout`")],
        ),
        (
            route("upstream: app\nretry: {attempts: 1, backoff: 1s}"),
            &[("12:35: listeners[0].routes[0].retry.backoff: ", "is longer than `backoffMax`")],
        ),
        (
            route("upstream: app\ntimeout: 1s\nidleTimeout: 2s"),
            &[("13:18: listeners[0].routes[0].idleTimeout: ", "is longer than `timeout`")],
        ),
        (
            listener(
                "mode: inbound\nroutes:\n- {name: a, upstream: app}\n- {name: a, match: {path: /x}, upstream: app}",
            ),
            &[
                ("11:5: listeners[0].routes[1]: ", "is never reached: `a` above takes every request"),
                ("11:12: listeners[0].routes[1].name: ", "is the name of routes[0]"),
            ],
        ),
        (
            listener(
                "mode: inbound\nroutes:\n- {name: a, match: {path: /x}, upstream: app}\n- {name: b, match: {path: /x}, upstream: app}",
            ),
            &[("11:22: listeners[0].routes[1].match: ", "is that of a route above")],
        ),
        (
            listener(
                "mode: gateway\ntls: {certificates: [{cert: c, key: k}]}\nroutes:\n- {name: a, match: {sni: x.example}, upstream: app}",
            ),
            &[("11:23: listeners[0].routes[0].match.sni: ", "`tls` of this listener ends it")],
        ),
        (
            listener("mode: inbound\nprotocol: http\nroutes:\n- {name: a, match: {sni: x.example}, upstream: app}"),
            &[("11:23: listeners[0].routes[0].match.sni: ", "`protocol` is http; make `protocol` tls or detect")],
        ),
        (
            listener("mode: inbound\nroutes:\n- {name: a, match: {sni: x.example, path: /}, upstream: app}"),
            &[("10:23: listeners[0].routes[0].match.sni: ", "stands beside fields of HTTP")],
        ),
        (
            listener("mode: inbound\nprotocol: tls\nroutes:\n- {name: a, match: {path: /}, upstream: app}"),
            &[("11:22: listeners[0].routes[0].match: ", "asks for HTTP, but `protocol` of this listener is tls")],
        ),
        (
            listener(
                "mode: inbound\nroutes:\n- {name: a, match: {pathPrefix: /}, upstream: app}\n- {name: b, match: {sni: x.example}, upstream: app}\n- {name: c, match: {path: /x}, upstream: app}\n- {name: d, upstream: app}",
            ),
            &[("12:5: listeners[0].routes[2]: ", "is never reached: `a` above takes every request")],
        ),
        (
            route("upstream: app\nmatch: {headers: {Host: x}}"),
            &[("12:29: listeners[0].routes[0].match.headers.Host: ", "match by `host`")],
        ),
    ]);
}
