//! What rules ask of a request, compiled: nothing here allocates or waits.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::method::Method;

use super::super::matcher::{HostPattern, PatternError, Patterns, compile_method, fail, host_of};
use super::super::path::PathPattern;
use crate::config::{Match, Mode, Party, PathKind};

/// What a request shows to the rules, its headers apart.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub side: Mode,
    /// Unknown of bytes that are no request.
    pub method: Option<&'a Method>,
    /// As sent; without the query.
    pub host: &'a str,
    pub path: &'a str,
    pub route: Option<&'a str>,
    pub grpc: bool,
    pub source: Option<Service<'a>>,
    pub destination: Option<Service<'a>>,
    /// The template that the path follows, or the method of gRPC, if its service is known to have it.
    pub template: Option<&'a str>,
    /// In nanoseconds since 1970.
    pub now: u64,
}

impl Request<'_> {
    /// Bytes, of which nothing is known.
    pub const NOTHING: Request<'static> = Request {
        side: Mode::Outbound,
        method: None,
        host: "",
        path: "",
        route: None,
        grpc: false,
        source: None,
        destination: None,
        template: None,
        now: 0,
    };
}

/// A service and its namespace, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
}

impl<'a> Service<'a> {
    /// `cart.shop`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (name, namespace) = text.split_once('.')?;
        Some(Self { name, namespace })
    }

    /// As Kubernetes names services: `cart`, `cart.shop`, `cart.shop.svc` and `cart.shop.svc.cluster.local`. An address
    /// and any other name is none.
    pub fn of_host(authority: &'a str, own_namespace: &'a str) -> Option<Self> {
        let host = host_of(authority);
        if host.is_empty() || host.starts_with('[') || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        let mut labels = host.split('.');
        let name = labels.next().filter(|label| !label.is_empty())?;
        let Some(namespace) = labels.next() else {
            return Some(Self { name, namespace: own_namespace }).filter(|_| !own_namespace.is_empty());
        };
        let rest = [labels.next(), labels.next(), labels.next(), labels.next()];
        let is = |label: Option<&str>, word: &str| label.is_some_and(|label| label.eq_ignore_ascii_case(word));
        let fits = match rest {
            [None, ..] => true,
            [svc, None, ..] => is(svc, "svc"),
            [svc, cluster, local, None] => is(svc, "svc") && is(cluster, "cluster") && is(local, "local"),
            _ => false,
        };
        Some(Self { name, namespace }).filter(|_| fits && !namespace.is_empty())
    }

    pub fn is(&self, other: Service<'_>) -> bool {
        self.name.eq_ignore_ascii_case(other.name) && self.namespace.eq_ignore_ascii_case(other.namespace)
    }
}

/// Service and method of gRPC, as far as they are asked.
pub(super) type Call = (Option<Box<str>>, Option<Box<str>>);

/// The compiled conditions of one rule; all of them must hold.
#[derive(Clone, Debug, Default)]
pub struct Test {
    pub(super) method: Option<Method>,
    pub(super) path: Option<PathPattern>,
    pub(super) host: Option<HostPattern>,
    pub(super) route: Option<Box<str>>,
    pub(super) headers: Vec<(HeaderName, Option<HeaderValue>)>,
    pub(super) grpc: Option<Call>,
    pub(super) source: Option<Party>,
    pub(super) destination: Option<Party>,
    pub(super) baggage: Vec<(Box<str>, Option<Box<str>>)>,
}

impl Test {
    pub fn compile(written: &Match) -> Result<Self, PatternError> {
        let mut patterns = Patterns::default();
        if let Some(path) = &written.path {
            let value = Some(path.value.clone());
            match path.kind {
                PathKind::Exact => patterns.path = value,
                PathKind::Prefix => patterns.path_prefix = value,
                PathKind::Template => patterns.path_template = value,
            }
        }
        let boxed = |text: &Option<String>| text.as_deref().map(Box::from);
        let headers = written.headers.iter().map(|field| compile_field(&field.name, field.value.as_deref()));
        let baggage = written.baggage.iter().map(|field| (field.name.as_str().into(), boxed(&field.value)));
        Ok(Self {
            method: written.method.as_deref().map(compile_method).transpose()?,
            path: PathPattern::compile(&patterns)?,
            host: written.host.as_deref().map(|text| HostPattern::compile("host", text)).transpose()?,
            route: boxed(&written.route),
            headers: headers.collect::<Result<_, PatternError>>()?,
            grpc: written.grpc.as_ref().map(|grpc| (boxed(&grpc.service), boxed(&grpc.method))),
            source: written.source.clone(),
            destination: written.destination.clone(),
            baggage: baggage.collect(),
        })
    }

    pub fn asks_destination(&self) -> bool {
        self.destination.is_some()
    }

    /// `believed`: what proxies say in headers of their own comes from one.
    pub fn holds(&self, request: &Request<'_>, headers: &HeaderMap, believed: bool) -> bool {
        self.method.as_ref().is_none_or(|method| Some(method) == request.method)
            && self.path.as_ref().is_none_or(|path| request.method.is_some() && path.matches(request.path))
            && self.host.as_ref().is_none_or(|host| host.matches(request.host))
            && self.route.as_ref().is_none_or(|route| request.route == Some(&**route))
            && self.grpc.as_ref().is_none_or(|(service, method)| {
                rpc(request).is_some_and(|(called, by)| {
                    service.as_ref().is_none_or(|service| **service == *called)
                        && method.as_ref().is_none_or(|method| **method == *by)
                })
            })
            && is_party(self.source.as_ref(), request.source)
            && is_party(self.destination.as_ref(), request.destination)
            && self.headers.iter().all(|(name, value)| {
                (believed || !name.as_str().starts_with(OWN))
                    && headers.get_all(name).iter().any(|line| value.as_ref().is_none_or(|value| line == value))
            })
            && self.baggage.iter().all(|(key, value)| carries(headers, key, value.as_deref()))
    }
}

fn compile_field(name: &str, value: Option<&str>) -> Result<(HeaderName, Option<HeaderValue>), PatternError> {
    let compiled = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fail("headers", name, FIELD_NAME))?;
    let value = match value {
        Some(value) => Some(HeaderValue::from_str(value).map_err(|_| fail("headers", value, FIELD_VALUE))?),
        None => None,
    };
    Ok((compiled, value))
}

/// The service and the method of a call of gRPC.
pub(super) fn rpc<'a>(request: &Request<'a>) -> Option<(&'a str, &'a str)> {
    request.path.strip_prefix('/').filter(|_| request.grpc)?.split_once('/')
}

fn is_party(wanted: Option<&Party>, there: Option<Service<'_>>) -> bool {
    let Some(wanted) = wanted else { return true };
    let Some(there) = there else { return false };
    let fits =
        |wanted: &Option<String>, there: &str| wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(there));
    fits(&wanted.service, there.name) && fits(&wanted.namespace, there.namespace)
}

/// W3C's `baggage`: members with properties behind them.
fn carries(headers: &HeaderMap, key: &str, value: Option<&str>) -> bool {
    members(headers).any(|(name, held)| name == key.as_bytes() && value.is_none_or(|value| held == value.as_bytes()))
}

/// Keys and values.
pub(super) fn members(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(&BAGGAGE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).filter_map(|member| {
        let member = member.split(|byte| *byte == b';').next()?;
        let (name, held) = member.split_at_checked(member.iter().position(|byte| *byte == b'=')?)?;
        Some((name.trim_ascii(), held.get(1..)?.trim_ascii()))
    })
}

const FIELD_NAME: &str = "this is no header name";
const FIELD_VALUE: &str = "this cannot be a header's value; it has control characters";
static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// Headers of the proxies themselves.
const OWN: &str = "spanmesh-";
