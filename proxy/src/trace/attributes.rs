//! A span in the words of OpenTelemetry's semantic conventions (1.44): its name, its attributes and whether it failed.
//! The HTTP conventions for HTTP, the RPC conventions for gRPC, those of the network for bytes. It runs in the background,
//! once for each form that spans are encoded in, and allocates only what is put together.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::propagate::Format;
use super::span::{Batch, Cause, Kind, Protocol, Report, RouteSource, Span, Times};
use super::trust::Inferred;
use crate::error::{Fault, GrpcStatus};

/// Takes attributes, in whatever form spans are encoded.
pub trait Fields {
    /// A key that somebody chose.
    fn custom(&mut self, key: &str, value: &str);
    fn list(&mut self, key: &str, values: &[Cow<'_, str>]);
    /// A key of ours, which needs no escape in any form.
    fn text(&mut self, key: &'static str, value: &str);
    fn int(&mut self, key: &'static str, value: i64);

    /// As text, which need not be put together first.
    fn address(&mut self, key: &'static str, value: IpAddr) {
        self.text(key, &value.to_string());
    }
}

/// A span beside the words of its batch.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    pub span: &'a Span,
    batch: &'a Batch,
}

impl<'a> Told<'a> {
    pub fn all(batch: &'a Batch) -> impl Iterator<Item = Told<'a>> {
        batch.spans().iter().map(move |span| Told { span, batch })
    }

    /// Few values: the method, and with it a route or an RPC, never a path.
    pub fn name(&self) -> Cow<'a, str> {
        match self.name_in_parts() {
            (method, "", _) => method,
            (method, space, route) => [&*method, space, &*route].concat().into(),
        }
    }

    /// To be written one behind the other.
    pub fn name_in_parts(&self) -> (Cow<'a, str>, &'static str, Cow<'a, str>) {
        let Self { span, batch } = *self;
        if span.protocol == Some(Protocol::Bytes) {
            return ("TCP".into(), "", "".into());
        }
        if span.grpc {
            return (self.rpc_method().unwrap_or("grpc".into()), "", "".into());
        }
        let method = known(batch.bytes(span.method)).unwrap_or("HTTP");
        match span.route.is_empty() {
            true => (method.into(), "", "".into()),
            false => (method.into(), " ", batch.text(span.route)),
        }
    }

    /// What went wrong, with few values: a status or a flag. `None` for what is no error of this side (a client may be
    /// told 404 by a server that is well).
    pub fn error(&self) -> Option<Cow<'static, str>> {
        let span = self.span;
        if span.kind == Kind::Internal {
            return None;
        }
        let client = span.kind == Kind::Client;
        if span.grpc {
            let status = self.rpc_status();
            let failures = self.batch.manner.as_ref().map(|manner| manner.failures).unwrap_or_default();
            return failures.has(span.kind, status).then(|| grpc_name(status));
        }
        if let Some(status) = span.status
            && status >= if client { 400 } else { 500 }
        {
            return Some(status.to_string().into());
        }
        // What has a status below that was told well; it may have broken later.
        let broke = span.status.is_none_or(|status| status < 400);
        let ours = matches!(span.flag.meaning().fault, Fault::Proxy | Fault::Upstream);
        (broke && ours).then(|| span.flag.name().into())
    }

    /// The tracestate that the next hop was told.
    pub fn state(&self) -> Cow<'a, str> {
        self.batch.text(self.span.context.state)
    }

    /// How many reports of a span are no longer kept, and the latest.
    pub fn reports(&self) -> (u32, impl Iterator<Item = Report>) {
        self.batch.reported(self.span.reports)
    }

    pub fn describe(&self, to: &mut impl Fields) {
        if self.span.kind == Kind::Internal {
            return self.interim(to);
        }
        match self.span {
            Span { protocol: Some(Protocol::Bytes), .. } => self.bytes(to),
            Span { grpc: true, .. } => self.rpc(to),
            _ => self.http(to),
        }
        self.common(to);
    }

    /// Of a span that reports another: what there is to tell is told there.
    fn interim(&self, to: &mut impl Fields) {
        to.text("spanmesh.side", self.span.side.name());
        to.int("spanmesh.interim", self.reports().0.into());
        self.moved(to);
    }

    fn http(&self, to: &mut impl Fields) {
        let Self { span, batch } = *self;
        match known(batch.bytes(span.method)) {
            Some(method) => to.text("http.request.method", method),
            None => {
                to.text("http.request.method", "_OTHER");
                if !span.method.is_empty() {
                    to.text("http.request.method_original", &batch.text(span.method));
                }
            }
        }
        let (path, query) = (batch.text(span.path), batch.text(span.query));
        let scheme = if span.secure { "https" } else { "http" };
        match span.kind {
            Kind::Client | Kind::Internal => {
                let mark = if query.is_empty() { "" } else { "?" };
                to.text("url.full", &[scheme, "://", &self.authority(), &path, mark, &query].concat());
            }
            Kind::Server => {
                to.text("url.path", if path.is_empty() { "/" } else { &path });
                if !query.is_empty() {
                    to.text("url.query", &query);
                }
                to.text("url.scheme", scheme);
                to.address("client.address", span.client.to_canonical());
                if !span.agent.is_empty() {
                    to.text("user_agent.original", &batch.text(span.agent));
                }
            }
        }
        if let Some(source) = span.route_source {
            // A client knows no route of the server's: to it the same is the template of what it asks for. And what was
            // only learned is nobody's route.
            let key = match (span.kind, source) {
                (Kind::Server, RouteSource::Configured) => "http.route",
                (Kind::Server, RouteSource::Learned) | (Kind::Client | Kind::Internal, _) => "url.template",
            };
            to.text(key, &batch.text(span.route));
            to.text("spanmesh.route.source", source.name());
        }
        if let Some(status) = span.status {
            to.int("http.response.status_code", status.into());
        }
        if let Some(version) = span.protocol.and_then(version) {
            to.text("network.protocol.version", version);
        }
    }

    fn rpc(&self, to: &mut impl Fields) {
        let Self { span, batch } = *self;
        to.text("rpc.system.name", "grpc");
        match self.rpc_method() {
            Some(method) => to.text("rpc.method", &method),
            None => {
                to.text("rpc.method", "_OTHER");
                to.text("rpc.method_original", &batch.text(span.path));
            }
        }
        to.text("rpc.response.status_code", &grpc_name(self.rpc_status()));
    }

    /// `package.Service/Method`, where it is one of the few that its service may have names of (`exchange::spans`).
    fn rpc_method(&self) -> Option<Cow<'a, str>> {
        let method = self.batch.text(self.span.route);
        (!method.is_empty()).then_some(method)
    }

    /// A call that brought no status has the one that its client makes up: from how it ended, else from the status of
    /// HTTP (gRPC's http-grpc-status-mapping).
    fn rpc_status(&self) -> u32 {
        let Span { grpc_status, flag, status, .. } = self.span;
        match (grpc_status, flag.meaning().grpc, status) {
            (Some(status), ..) => *status,
            (None, GrpcStatus::Ok, Some(400)) => GrpcStatus::Internal as u32,
            (None, GrpcStatus::Ok, Some(401)) => UNAUTHENTICATED,
            (None, GrpcStatus::Ok, Some(403)) => GrpcStatus::PermissionDenied as u32,
            (None, GrpcStatus::Ok, Some(404)) => GrpcStatus::Unimplemented as u32,
            (None, GrpcStatus::Ok, Some(429 | 502..=504)) => GrpcStatus::Unavailable as u32,
            (None, GrpcStatus::Ok, _) => UNKNOWN,
            (None, ended, _) => ended as u32,
        }
    }

    fn bytes(&self, to: &mut impl Fields) {
        to.text("network.transport", "tcp");
        self.moved(to);
    }

    fn moved(&self, to: &mut impl Fields) {
        moved(self.span.sent, self.span.received, to);
    }

    fn common(&self, to: &mut impl Fields) {
        let span = self.span;
        let (address, port) = self.server();
        to.text("server.address", &address);
        to.int("server.port", port.into());
        to.address("network.peer.address", span.peer.ip().to_canonical());
        to.int("network.peer.port", span.peer.port().into());
        if let Some(error) = self.error() {
            to.text("error.type", &error);
        }
        if span.resent > 0 {
            if !span.grpc {
                to.int("http.request.resend_count", span.resent.into());
            }
            match span.cause {
                Some(Cause::Flag(flag)) => to.text("spanmesh.attempt.cause", flag.name()),
                Some(Cause::Status(status)) => to.text("spanmesh.attempt.cause", &status.to_string()),
                None => {}
            }
        }
        to.text("spanmesh.side", span.side.name());
        to.text("spanmesh.response.flag", span.flag.name());
        self.times(to);
        self.context(to);
        if let Some(manner) = &self.batch.manner {
            manner.custom.tell(self.batch.bytes(span.custom), span.grpc, to);
        }
    }

    fn times(&self, to: &mut impl Fields) {
        let Times { queue, pool, connect, tls, first_byte } = self.span.times;
        put_time(to, "spanmesh.time.queue", queue);
        put_time(to, "spanmesh.time.pool", pool);
        put_time(to, "spanmesh.time.connect", connect);
        put_time(to, "spanmesh.time.tls", tls);
        put_time(to, "spanmesh.time.first_byte", first_byte);
    }

    fn context(&self, to: &mut impl Fields) {
        let Self { span: Span { context, .. }, batch } = *self;
        if let Some(decided) = context.decided {
            to.text("spanmesh.sampling.decision", decided.name());
            for (key, words) in [("spanmesh.sampling.policy", context.policy), ("spanmesh.sampling.rule", context.rule)]
            {
                if !words.is_empty() {
                    to.text(key, &batch.text(words));
                }
            }
            if context.generation > 0 {
                to.int("spanmesh.sampling.generation", i64::try_from(context.generation).unwrap_or(i64::MAX));
            }
            if let Some(trigger) = context.trigger {
                to.text("spanmesh.sampling.trigger", trigger.name());
            }
        }
        if let Some(source) = context.source {
            to.text("spanmesh.context.source", source.name());
        }
        if !context.disagreed.is_empty() {
            let names: Vec<_> = context.disagreed.iter().map(Format::name).collect();
            to.text("spanmesh.context.conflict", &names.join(","));
        }
        if let Some(inferred @ (Inferred::Link | Inferred::Parent)) = context.inferred {
            to.text("spanmesh.context.inferred", inferred.name());
        }
        for (key, words) in [("spanmesh.request_id", context.request_id), ("jaeger-debug-id", context.debug_id)] {
            if !words.is_empty() {
                to.text(key, &batch.text(words));
            }
        }
    }

    /// As the request names it, else as it was reached.
    fn authority(&self) -> Cow<'a, str> {
        let host = self.batch.text(self.span.host);
        if host.is_empty() { self.destination().to_string().into() } else { host }
    }

    fn server(&self) -> (Cow<'a, str>, u16) {
        let default = if self.span.secure { 443 } else { 80 };
        let reached = self.destination();
        match self.batch.text(self.span.host) {
            host if host.is_empty() => (reached.ip().to_canonical().to_string().into(), reached.port()),
            Cow::Borrowed(host) => {
                let (address, port) = split(without_user(host));
                (address.into(), port.unwrap_or(default))
            }
            Cow::Owned(host) => {
                let (address, port) = split(without_user(&host));
                (address.to_owned().into(), port.unwrap_or(default))
            }
        }
    }

    fn destination(&self) -> SocketAddr {
        self.span.server
    }
}

/// Its key is known where it is called, and is written in fewer steps there.
#[inline(always)]
fn put_time(to: &mut impl Fields, key: &'static str, micros: Option<u32>) {
    if let Some(micros) = micros {
        to.int(key, micros.into());
    }
}

/// Bytes of the request's content and of the answer's, or of a connection to and fro.
pub fn moved(sent: u64, received: u64, to: &mut impl Fields) {
    to.int("spanmesh.bytes.sent", i64::try_from(sent).unwrap_or(i64::MAX));
    to.int("spanmesh.bytes.received", i64::try_from(received).unwrap_or(i64::MAX));
}

fn without_user(authority: &str) -> &str {
    rsplit(authority, b'@').map_or(authority, |(_, host)| host)
}

/// As `rsplit_once`, which takes longer over a text as short as these.
fn rsplit(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.bytes().rposition(|byte| byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// Host and port of an authority. A name that is no name is the whole of it.
fn split(authority: &str) -> (&str, Option<u16>) {
    match rsplit(authority, b':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host.trim_start_matches('[').trim_end_matches(']'), Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority.trim_start_matches('[').trim_end_matches(']'), None),
    }
}

/// `package.Service/Method`. What exists only its server knows.
pub fn rpc_method(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/')?;
    let (service, method) = name.split_once('/')?;
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
    };
    (is_word(service) && is_word(method)).then_some(name)
}

/// RFC 9110, PATCH (RFC 5789) and QUERY, as they are written.
fn known(method: &[u8]) -> Option<&'static str> {
    Some(match method {
        b"GET" => "GET",
        b"POST" => "POST",
        b"HEAD" => "HEAD",
        b"PUT" => "PUT",
        b"DELETE" => "DELETE",
        b"CONNECT" => "CONNECT",
        b"OPTIONS" => "OPTIONS",
        b"TRACE" => "TRACE",
        b"PATCH" => "PATCH",
        b"QUERY" => "QUERY",
        _ => return None,
    })
}

fn version(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Http10 => Some("1.0"),
        Protocol::Http11 => Some("1.1"),
        Protocol::Http2 => Some("2"),
        Protocol::Bytes => None,
    }
}

fn grpc_name(status: u32) -> Cow<'static, str> {
    match GRPC_NAMES.get(status as usize) {
        Some(name) => Cow::Borrowed(name),
        None => status.to_string().into(),
    }
}

const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

const UNKNOWN: u32 = 2;
const UNAUTHENTICATED: u32 = 16;

#[cfg(test)]
pub(super) mod tests {
    use spanmesh_proto::{SpanId, TraceId};

    use super::*;
    use crate::error::Flag;
    use crate::trace::span::{Side, Words};

    /// Attributes as `key=value`.
    #[derive(Default)]
    pub(in crate::trace) struct Lines(pub(in crate::trace) Vec<String>);

    impl Fields for Lines {
        fn custom(&mut self, key: &str, value: &str) {
            self.0.push(format!("{key}={value}"));
        }

        fn text(&mut self, key: &'static str, value: &str) {
            self.0.push(format!("{key}={value}"));
        }

        fn int(&mut self, key: &'static str, value: i64) {
            self.0.push(format!("{key}={value}"));
        }

        fn list(&mut self, key: &str, values: &[Cow<'_, str>]) {
            self.0.push(format!("{key}=[{}]", values.join("|")));
        }
    }

    /// A plain GET that was answered.
    fn span(batch: &mut Batch, kind: Kind) -> Span {
        let trace = TraceId::from_bytes([1; 16]).expect("an id");
        let id = SpanId::from_bytes([2; 8]).expect("an id");
        Span {
            kind,
            side: if kind == Kind::Server { Side::Server } else { Side::Client },
            start_nanos: 1,
            end_nanos: 2,
            protocol: Some(Protocol::Http11),
            peer: "[::ffff:10.0.0.1]:5000".parse().expect("an address"),
            client: "10.0.0.9".parse().expect("an address"),
            server: "10.0.0.2:8080".parse().expect("an address"),
            status: Some(200),
            sent: 3,
            received: 4,
            method: batch.word(b"GET", 9),
            host: batch.word(b"shop:81", 9),
            path: batch.word(b"/a", 9),
            query: batch.word(b"q=1&sig=x", 9),
            agent: batch.word(b"curl", 9),
            ..Span::new(trace, id)
        }
    }

    fn told(kind: Kind, change: impl FnOnce(&mut Span, &mut Batch)) -> (String, Option<String>, Vec<String>) {
        let mut batch = Batch::default();
        let mut span = span(&mut batch, kind);
        change(&mut span, &mut batch);
        batch.push(span);
        let told = Told::all(&batch).next().expect("a span");
        let mut lines = Lines::default();
        told.describe(&mut lines);
        (told.name().into_owned(), told.error().map(Cow::into_owned), lines.0)
    }

    #[test]
    fn a_server_span_says_what_was_asked_and_a_client_span_whom() {
        let (name, error, lines) = told(Kind::Server, |_, _| {});
        assert_eq!((name.as_str(), error), ("GET", None));
        assert_eq!(
            lines,
            [
                "http.request.method=GET",
                "url.path=/a",
                "url.query=q=1&sig=x",
                "url.scheme=http",
                "client.address=10.0.0.9",
                "user_agent.original=curl",
                "http.response.status_code=200",
                "network.protocol.version=1.1",
                "server.address=shop",
                "server.port=81",
                "network.peer.address=10.0.0.1",
                "network.peer.port=5000",
                "spanmesh.side=server",
                "spanmesh.response.flag=ok",
            ]
        );
        let (_, _, lines) = told(Kind::Client, |span, _| {
            (span.resent, span.cause) = (2, Some(Cause::Status(503)));
        });
        assert!(lines.contains(&"url.full=http://shop:81/a?q=1&sig=x".into()), "{lines:?}");
        assert!(lines.contains(&"http.request.resend_count=2".into()), "{lines:?}");
        assert!(lines.contains(&"spanmesh.attempt.cause=503".into()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("client.") || line.starts_with("url.path")), "{lines:?}");
    }

    #[test]
    fn a_configured_route_names_the_spans_of_both_sides() {
        for (kind, key) in [(Kind::Server, "http.route"), (Kind::Client, "url.template")] {
            let (name, _, lines) = told(kind, |span, batch| {
                (span.route, span.route_source) = (batch.word(b"/a/{id}", 99), Some(RouteSource::Configured));
            });
            assert_eq!(name, "GET /a/{id}");
            let found = lines.iter().filter(|line| line.contains("route") || line.contains("template"));
            assert_eq!(found.collect::<Vec<_>>(), [&format!("{key}=/a/{{id}}"), "spanmesh.route.source=configured"]);
        }
    }

    #[test]
    fn what_is_an_error_depends_on_the_side() {
        let error = |kind, status, flag| told(kind, |span, _| (span.status, span.flag) = (status, flag)).1;
        for (status, flag, server, client) in [
            (Some(404), Flag::Ok, None, Some("404")),
            (Some(500), Flag::Ok, Some("500"), Some("500")),
            (Some(200), Flag::UpstreamReset, Some("upstream_reset"), Some("upstream_reset")),
            (None, Flag::ConnectFailed, Some("connect_failed"), Some("connect_failed")),
            (None, Flag::ClientReset, None, None),
            (Some(200), Flag::ClientReset, None, None),
            (Some(404), Flag::NoRoute, None, Some("404")),
        ] {
            assert_eq!(error(Kind::Server, status, flag).as_deref(), server, "{status:?} {flag:?}");
            assert_eq!(error(Kind::Client, status, flag).as_deref(), client, "{status:?} {flag:?}");
        }
    }

    #[test]
    fn a_call_speaks_in_the_words_of_rpc() {
        let call = |kind, status, path: &[u8]| {
            told(kind, |span, batch| {
                (span.grpc, span.grpc_status) = (true, Some(status));
                span.path = batch.word(path, 99);
                // Whoever fills spans in decides which methods have names.
                span.route = if path.starts_with(b"/shop") { span.path.skip(1) } else { Words::default() };
            })
        };
        let (name, error, lines) = call(Kind::Server, 5, b"/shop.Cart/Add");
        assert_eq!((name.as_str(), error), ("shop.Cart/Add", None));
        assert_eq!(
            lines[..3],
            ["rpc.system.name=grpc", "rpc.method=shop.Cart/Add", "rpc.response.status_code=NOT_FOUND"]
        );
        assert!(!lines.iter().any(|line| line.starts_with("http.") || line.starts_with("url.")), "{lines:?}");
        assert_eq!(call(Kind::Client, 5, b"/shop.Cart/Add").1.as_deref(), Some("NOT_FOUND"));
        assert_eq!(call(Kind::Server, 14, b"/shop.Cart/Add").1.as_deref(), Some("UNAVAILABLE"));
        let (name, _, lines) = call(Kind::Server, 99, b"/no/such/thing");
        assert_eq!(name, "grpc");
        assert_eq!(
            lines[1..4],
            ["rpc.method=_OTHER", "rpc.method_original=/no/such/thing", "rpc.response.status_code=99"]
        );
    }

    #[test]
    fn a_call_that_brought_no_status_has_the_one_that_its_client_makes_up() {
        for (http, flag, server, client) in [
            (None, Flag::UpstreamReset, Some("UNAVAILABLE"), Some("UNAVAILABLE")),
            (Some(200), Flag::ClientReset, None, Some("CANCELLED")),
            (Some(403), Flag::Ok, None, Some("PERMISSION_DENIED")),
            (Some(200), Flag::Ok, Some("UNKNOWN"), Some("UNKNOWN")),
        ] {
            for (kind, error) in [(Kind::Server, server), (Kind::Client, client)] {
                let (_, found, lines) = told(kind, |span, _| (span.grpc, span.status, span.flag) = (true, http, flag));
                assert_eq!(found.as_deref(), error, "{http:?} {flag:?}");
                let status = lines.iter().find_map(|line| line.strip_prefix("rpc.response.status_code="));
                assert_eq!(status, client, "{http:?} {flag:?}");
            }
        }
    }

    #[test]
    fn methods_that_nobody_knows_make_no_names() {
        let (name, _, lines) = told(Kind::Server, |span, batch| span.method = batch.word(b"get", 9));
        assert_eq!(name, "HTTP");
        assert_eq!(lines[..2], ["http.request.method=_OTHER", "http.request.method_original=get"]);
    }

    #[test]
    fn authorities_are_taken_apart() {
        for (authority, address, port) in [
            ("shop", "shop", None),
            ("shop:80", "shop", Some(80)),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
            ("::1", "::1", None),
            ("shop:x", "shop:x", None),
        ] {
            assert_eq!(split(authority), (address, port));
        }
    }
}
