//! What one field says of another: names that exist, ports that do not collide, routes that can be reached.
//!
//! Each field by itself was checked as it was read. Everything that is wrong is told, in the order of the file.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::problem::suggest;
use super::reader::Reader;
use super::sampling;
use super::{
    AnswerTrace, Attribute, Config, Destination, Endpoint, HeaderField, Listener, ListenerProtocol, Mode, Policy,
    Propagation, Retry, RetryOn, Route, RouteMatch, Target, Upstream, UpstreamTls,
};

pub fn validate(config: &Config, reader: &mut Reader) {
    let upstreams: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    unique(reader, "listeners", config.listeners.iter().map(|listener| listener.name.as_str()));
    unique(reader, "upstreams", upstreams.iter().copied());
    reader.field("policy", |reader| policy(reader, &config.policy));
    if config.control_plane.as_ref().is_some_and(|control_plane| control_plane.addresses.is_empty()) {
        reader.field("controlPlane", |reader| {
            reader.wrong_field(
                "addresses",
                "is empty",
                "write where the control plane is, such as `[\"https://host:14010\"]`",
            );
        });
    }
    addresses(config, reader);
    reader.each("listeners", &config.listeners, |reader, _, listener| check_listener(reader, listener, &upstreams));
    reader.each("upstreams", &config.upstreams, |reader, _, upstream| check_upstream(reader, upstream));
}

/// Also of one that is pushed.
pub fn policy(reader: &mut Reader, policy: &Policy) {
    reader.field("propagation", |reader| propagation(reader, &policy.propagation));
    reader.field("sampling", |reader| sampling::check(reader, &policy.sampling));
    attributes(reader, &policy.attributes);
    unique(reader, "destinations", policy.destinations.iter().map(|destination| destination.name.as_str()));
    reader.each("destinations", &policy.destinations, |reader, _, destination| {
        check_destination(reader, destination);
    });
}

fn attributes(reader: &mut Reader, attributes: &[Attribute]) {
    if attributes.len() > ATTRIBUTES {
        reader.wrong_field("attributes", format!("has {} of them", attributes.len()), "write at most 32");
    }
    let name = |attribute: &Attribute| match (&attribute.name, &attribute.request_header, &attribute.response_header) {
        (Some(name), ..) => name.clone(),
        (None, Some(header), _) => format!("http.request.header.{header}"),
        (None, None, header) => format!("http.response.header.{}", header.as_deref().unwrap_or_default()),
    };
    let names: Vec<String> = attributes.iter().map(name).collect();
    reader.each("attributes", attributes, |reader, index, attribute| {
        let Attribute { request_header, response_header, baggage, variable, value, .. } = attribute;
        let sources = [request_header, response_header, baggage, variable, value].map(Option::is_some);
        if sources.iter().filter(|given| **given).count() != 1 {
            reader.wrong::<()>(
                "needs exactly one of `requestHeader`, `responseHeader`, `baggage`, `variable` and `value`",
                "write one, such as `{name: tenant, requestHeader: x-tenant}`",
            );
        } else if attribute.name.is_none() && request_header.is_none() && response_header.is_none() {
            reader.wrong_field("name", "is missing", "only an attribute from a header has a name of its own");
        } else if names.iter().take(index).any(|before| Some(before) == names.get(index)) {
            reader.wrong::<()>("is there already", "keep one attribute of each name");
        }
    });
}

/// What is no error, but hardly wanted.
pub fn warnings(config: &Config) -> Vec<String> {
    let address = config.admin.address;
    match address.ip().is_loopback() {
        true => Vec::new(),
        false => vec![format!(
            "admin.address: {address} is not on loopback; whoever reaches it can read the configuration and drain the proxy"
        )],
    }
}

fn propagation(reader: &mut Reader, propagation: &Propagation) {
    for (name, list) in
        [("extract", &propagation.extract), ("inject", &propagation.inject), ("clear", &propagation.clear)]
    {
        let twice =
            list.iter().enumerate().find(|(index, format)| list.iter().take(*index).any(|other| other == *format));
        if let Some((index, format)) = twice {
            reader.field(name, |reader| {
                reader.item(index, |reader| {
                    reader.wrong::<()>(format!("`{}` is there twice", format.name()), "keep the first")
                })
            });
        }
    }
    let both = propagation.clear.iter().position(|format| propagation.inject.contains(format));
    if let Some(index) = both {
        reader.field("clear", |reader| {
            reader.item(index, |reader| reader.wrong::<()>("is in `inject` too", "keep it in one of the two"))
        });
    }
}

fn unique<'a>(reader: &mut Reader, list: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen = HashMap::new();
    reader.field(list, |reader| {
        for (index, name) in names.enumerate() {
            match seen.get(name) {
                None => {
                    seen.insert(name, index);
                }
                Some(first) => reader.item(index, |reader| {
                    reader.wrong_field(
                        "name",
                        format!("`{name}` is the name of {list}[{first}]"),
                        "give it a name of its own",
                    );
                }),
            }
        }
    });
}

/// Two sockets on one address would share its connections by chance.
fn addresses(config: &Config, reader: &mut Reader) {
    let mut taken: HashMap<SocketAddr, String> = HashMap::new();
    let mut take = |reader: &mut Reader, address: SocketAddr, owner: String| match taken.get(&address) {
        Some(other) if address.port() != 0 => {
            reader.wrong_field("address", format!("{address} is taken by {other}"), "give each its own port");
        }
        _ => {
            taken.insert(address, owner);
        }
    };
    reader.field("admin", |reader| take(reader, config.admin.address, "admin.address".into()));
    reader.field("status", |reader| take(reader, config.status.address, "status.address".into()));
    reader.each("listeners", &config.listeners, |reader, index, listener| {
        take(reader, listener.address, format!("listeners[{index}].address"));
    });
}

fn check_listener(reader: &mut Reader, listener: &Listener, upstreams: &[&str]) {
    let is_gateway = listener.mode == Mode::Gateway;
    if listener.transparent && is_gateway {
        reader.wrong_field(
            "transparent",
            "is for connections redirected in a pod, not for a gateway",
            "leave it out, or make `mode` inbound or outbound",
        );
    }
    if listener.tls.is_some() && !is_gateway {
        reader.needless_field("tls", "is for a gateway", "leave it out, or make `mode` gateway");
    }
    if listener.trusted_hops > 0 && !is_gateway {
        reader.wrong_field("trustedHops", "is for a gateway", "leave it out, or make `mode` gateway");
    }
    if listener.https_redirect && !is_gateway {
        reader.wrong_field("httpsRedirect", "is for a gateway", "leave it out, or make `mode` gateway");
    } else if listener.https_redirect && listener.tls.is_some() {
        reader.wrong_field(
            "httpsRedirect",
            "has nothing to redirect where `tls` is spoken",
            "put it on a second listener without `tls`",
        );
    } else if listener.https_redirect && matches!(listener.protocol, ListenerProtocol::Opaque | ListenerProtocol::Tls) {
        reader.wrong_field(
            "protocol",
            "carries no plain HTTP that `httpsRedirect` could answer",
            "write `detect` or `http`",
        );
    }
    if let Some(tls) = &listener.tls {
        if tls.certificates.is_empty() {
            reader.field("tls", |reader| {
                reader.wrong_field("certificates", "is empty", "add a certificate: `{cert: tls.crt, key: tls.key}`");
            });
        }
        if listener.protocol == ListenerProtocol::Tls {
            reader.wrong_field(
                "protocol",
                "passes TLS through, but `tls` ends it here",
                "write `detect` or `http`, or leave `tls` out",
            );
        }
    }
    if listener.answer_trace != AnswerTrace::None && !is_gateway {
        reader.wrong_field("answerTrace", "is for a gateway", "leave it out, or make `mode` gateway");
    }
    if let Some(own) = &listener.propagation {
        reader.field("propagation", |reader| propagation(reader, own));
    }
    let both: Vec<(usize, u16)> = listener
        .http_ports
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, port)| listener.opaque_ports.contains(port))
        .collect();
    reader.field("httpPorts", |reader| {
        for (index, port) in both {
            reader.item(index, |reader| {
                reader.wrong::<()>(format!("{port} is in `opaquePorts` too"), "keep it in one of the two")
            });
        }
    });
    goes_somewhere(reader, listener);
    if let Some(upstream) = &listener.upstream {
        reader.field("upstream", |reader| exists(reader, upstream, upstreams));
    }
    routes(reader, listener, upstreams);
}

fn goes_somewhere(reader: &mut Reader, listener: &Listener) {
    let has_target = listener.upstream.is_some() || !listener.routes.is_empty();
    if has_target || listener.transparent || listener.https_redirect || listener.mode == Mode::Outbound {
        return;
    }
    let right = match listener.mode {
        Mode::Gateway => "add `upstream`, `routes` or `httpsRedirect`",
        Mode::Inbound | Mode::Outbound => "add `upstream` or `routes`, or make it `transparent`",
    };
    reader.wrong::<()>("leads nowhere", right);
}

fn exists(reader: &mut Reader, upstream: &str, upstreams: &[&str]) {
    if !upstreams.contains(&upstream) {
        reader.wrong::<()>(format!("`{upstream}` is not an upstream"), suggest(upstream, "upstreams", upstreams));
    }
}

fn routes(reader: &mut Reader, listener: &Listener, upstreams: &[&str]) {
    unique(reader, "routes", listener.routes.iter().map(|route| route.name.as_str()));
    let mut catch_all: Option<&Route> = None;
    // The Debug text of a match tells all its fields and can be hashed.
    let mut seen: HashSet<String> = HashSet::new();
    reader.each("routes", &listener.routes, |reader, _, route| {
        let passes_through = route.matches.sni.is_some() || route.matches.is_catch_all();
        if let Some(earlier) = catch_all.filter(|earlier| earlier.matches.is_catch_all() || !passes_through) {
            reader.wrong::<()>(
                format!("is never reached: `{}` above takes every request", earlier.name),
                "move it above that one, or give that one a `match`",
            );
        } else if route.matches.takes_every_request() {
            catch_all = Some(route);
        } else if !seen.insert(format!("{:?}", route.matches)) {
            reader.wrong_field(
                "match",
                "is that of a route above, so this one is never reached",
                "change one of the two, or remove one",
            );
        }
        reader.field("match", |reader| check_match(reader, listener, &route.matches));
        reader.field("upstream", |reader| exists(reader, &route.upstream, upstreams));
        if let (Some(total), Some(idle)) = (route.timeout, route.idle_timeout)
            && idle > total
        {
            reader.wrong_field(
                "idleTimeout",
                "is longer than `timeout`, so it never runs out",
                "write less than `timeout`, or leave it out",
            );
        }
        if let Some(retry) = &route.retry {
            reader.field("retry", |reader| check_retry(reader, route, retry));
        }
    });
}

fn check_match(reader: &mut Reader, listener: &Listener, matches: &RouteMatch) {
    let paths = [
        ("path", matches.path.is_some()),
        ("pathPrefix", matches.path_prefix.is_some()),
        ("pathTemplate", matches.path_template.is_some()),
    ];
    let mut set = paths.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
    if let Some(first) = set.next() {
        for second in set {
            reader.needless_field(
                second,
                format!("stands beside `{first}`"),
                "keep one of `path`, `pathPrefix` and `pathTemplate`",
            );
        }
    }
    let asks_http = matches.host.is_some()
        || matches.method.is_some()
        || !matches.headers.is_empty()
        || paths.iter().any(|(_, set)| *set);
    if matches.sni.is_some() {
        let right = "leave `sni` out, and match by `host`";
        if listener.tls.is_some() {
            reader.needless_field(
                "sni",
                "is for TLS that is passed through, but `tls` of this listener ends it",
                right,
            );
        } else if !matches!(listener.protocol, ListenerProtocol::Tls | ListenerProtocol::Detect) {
            let protocol = listener.protocol.name();
            reader.needless_field(
                "sni",
                format!("is for TLS that is passed through, but `protocol` is {protocol}"),
                "make `protocol` tls or detect, or leave `sni` out",
            );
        } else if asks_http {
            reader.needless_field(
                "sni",
                "stands beside fields of HTTP, which TLS that is passed through does not show",
                "write two routes, one with `sni` and one with the other fields",
            );
        }
    } else if asks_http && matches!(listener.protocol, ListenerProtocol::Tls | ListenerProtocol::Opaque) {
        let protocol = listener.protocol.name();
        reader.wrong::<()>(
            format!("asks for HTTP, but `protocol` of this listener is {protocol}"),
            "make `protocol` http or detect, or leave these fields out",
        );
    }
}

fn check_retry(reader: &mut Reader, route: &Route, retry: &Retry) {
    if retry.on.is_empty() {
        reader.wrong_field("on", "is empty, so nothing is tried again", "add a condition, or leave `retry` out");
    }
    if let (Some(total), Some(attempt)) = (route.timeout, retry.attempt_timeout)
        && attempt > total
    {
        reader.wrong_field(
            "attemptTimeout",
            "is longer than the route's `timeout`",
            "write at most the route's `timeout`",
        );
    }
    if retry.attempt_timeout.is_none()
        && let Some(index) = retry.on.iter().position(|on| *on == RetryOn::Timeout)
    {
        reader.field("on", |reader| {
            reader.item(index, |reader| {
                reader.wrong::<()>(
                    "waits for `attemptTimeout`, which is not set",
                    "add `attemptTimeout`, or leave `timeout` out of `on`",
                )
            })
        });
    }
    if retry.backoff > retry.backoff_max {
        reader.wrong_field("backoff", "is longer than `backoffMax`", "write at most `backoffMax`");
    }
}

fn check_upstream(reader: &mut Reader, upstream: &Upstream) {
    if upstream.addresses.is_empty() {
        reader.wrong_field("addresses", "is empty", "add an address: `\"10.0.0.1:8080\"`");
    }
    if let Some(tls) = &upstream.tls {
        check_tls(reader, tls);
    }
}

fn check_tls(reader: &mut Reader, tls: &UpstreamTls) {
    reader.field("tls", |reader| match (&tls.cert, &tls.key) {
        (Some(_), None) => reader.wrong_field("cert", "has no `key`", "add the `key` of this certificate"),
        (None, Some(_)) => reader.wrong_field("key", "has no `cert`", "add the `cert` of this key"),
        (Some(_), Some(_)) | (None, None) => {}
    });
}

fn check_destination(reader: &mut Reader, destination: &Destination) {
    match &destination.to {
        Target::OtlpHttp(to) => reader.field("otlpHttp", |reader| {
            match (&to.endpoint, &to.traces_endpoint) {
                (Some(_), Some(_)) => reader.needless_field(
                    "tracesEndpoint",
                    "stands beside `endpoint`",
                    "keep `endpoint`, to which `/v1/traces` is added, or `tracesEndpoint`, which is taken as it is",
                ),
                (None, None) => {
                    reader.wrong::<()>("leads nowhere", "add `endpoint: \"http://collector:4318\"`");
                }
                (Some(_), None) | (None, Some(_)) => {}
            }
            check_receiver(reader, to.endpoint.as_ref().or(to.traces_endpoint.as_ref()), &to.headers, to.tls.as_ref());
        }),
        Target::OtlpGrpc(to) => reader.field("otlpGrpc", |reader| {
            if !matches!(to.endpoint.path.as_str(), "" | "/") {
                reader.wrong_field(
                    "endpoint",
                    "has a path, which gRPC sets itself",
                    "leave the path out, or write it as `otlpHttp`",
                );
            }
            check_receiver(reader, Some(&to.endpoint), &to.headers, to.tls.as_ref());
        }),
        Target::Zipkin(to) => {
            reader.field("zipkin", |reader| check_receiver(reader, Some(&to.endpoint), &to.headers, to.tls.as_ref()))
        }
        Target::File(_) | Target::Stdout => {}
    }
}

fn check_receiver(
    reader: &mut Reader,
    endpoint: Option<&Endpoint>,
    headers: &[HeaderField],
    tls: Option<&UpstreamTls>,
) {
    if let Some(tls) = tls {
        if endpoint.is_some_and(|endpoint| !endpoint.secure) {
            reader.needless_field(
                "tls",
                "stands beside an endpoint in clear text",
                "begin the endpoint with `https://`, or leave `tls` out",
            );
        }
        check_tls(reader, tls);
    }
    reader.each("headers", headers, |reader, _, field| {
        let given = [field.value.is_some(), field.variable.is_some(), field.file.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            reader.wrong::<()>(
                "needs exactly one of `value`, `variable` and `file`",
                "write one, such as `{name: authorization, file: token}`",
            );
        }
    });
}

/// Each is looked for in every request that is sampled.
const ATTRIBUTES: usize = 32;
