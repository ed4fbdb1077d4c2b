//! What a rule asks of a request. All that is written must hold; nothing written holds for every request.

use crate::config::grammar::{BaggageKey, HeaderName, HostPattern, Method, Name, PathTemplate, UrlPath};
use crate::config::reader::Reader;
use crate::config::schema::{Form, Kind, section, words};
use crate::config::tree::Tree;

section! {
    /// Which requests a rule is for. All that is written must hold.
    pub struct Match: Default {
        /// The method, such as `GET`.
        method: Option<String> as Option<Method>,
        /// The path, as it was sent.
        path: Option<PathMatch>,
        /// The host that the request names, without its port; `*.shop.example` is every name below.
        host: Option<String> as Option<HostPattern>,
        /// The name of the route that the request takes.
        route: Option<String> as Option<Name>,
        /// Headers that it must have. Those of the proxies themselves, `spanmesh-…`, count only from callers that are believed. At most 8.
        headers: Vec<HeaderMatch> = Vec::new(),
        /// It is a call of gRPC.
        grpc: Option<GrpcMatch>,
        /// Who sends it. Holds where this proxy is the sender's: on outbound listeners and gateways.
        source: Option<Party>,
        /// Whom it is for: on outbound listeners and gateways as `upstreams[].service` or the host tells, on inbound ones this proxy's own service.
        destination: Option<Party>,
        /// Members that its `baggage` must have, as far as the listener passes them on. At most 8.
        baggage: Vec<BaggageMatch> = Vec::new(),
    }
}

/// What a path must be. Compared as sent, without its query.
#[derive(Clone, Debug, PartialEq)]
pub struct PathMatch {
    pub kind: PathKind,
    pub value: String,
}

words! {
    /// How a path is compared.
    pub enum PathKind {
        /// It is the same.
        Exact = "Exact",
        /// It is the same, or below it: `/cart` holds for `/cart/7`, not for `/cartoon`.
        Prefix = "Prefix",
        /// It has the same segments, where `{name}` is any one, and `{name=**}` at the end all that follows.
        Template = "Template",
    }
}

section! {
    /// A path.
    pub struct WrittenPath {
        /// How it is compared.
        kind ("type"): PathKind = PathKind::Prefix,
        /// What it is compared with, such as `/cart` or `/carts/{id}`.
        value: String,
    }
}

section! {
    /// A header of the request.
    pub struct HeaderMatch {
        /// Its name.
        name: String as HeaderName,
        /// What one of its lines must be. Left out: anything.
        value: Option<String>,
    }
}

section! {
    /// A member of the request's baggage.
    pub struct BaggageMatch {
        /// Its key.
        name: String as BaggageKey,
        /// Its value as it was sent. Left out: any.
        value: Option<String>,
    }
}

section! {
    /// A call of gRPC.
    pub struct GrpcMatch: Default {
        /// The service with its package, such as `shop.Cart`. Left out: any.
        service: Option<String>,
        /// The method, such as `GetItem`. Left out: any.
        method: Option<String>,
    }
}

section! {
    /// One end of a call. What is left out may be any.
    pub struct Party: Default {
        /// The service.
        service: Option<String> as Option<Name>,
        /// Its namespace.
        namespace: Option<String> as Option<Name>,
    }
}

impl Match {
    /// Whether it holds for every request.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Form for PathMatch {
    type Plain = PathMatch;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<PathMatch> {
        let WrittenPath { kind, value } = WrittenPath::read(reader, tree)?;
        let text = Tree::Text(value);
        let value = reader.field("value", |reader| match kind {
            PathKind::Exact | PathKind::Prefix => UrlPath::read(reader, &text),
            PathKind::Template => PathTemplate::read(reader, &text),
        })?;
        Some(PathMatch { kind, value })
    }

    fn write(plain: &PathMatch) -> Tree {
        WrittenPath::write(&WrittenPath { kind: plain.kind, value: plain.value.clone() })
    }

    fn kind() -> Kind {
        WrittenPath::kind()
    }
}
