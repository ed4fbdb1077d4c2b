//! Where a request or a connection goes: the listener's routes first, then its one upstream, then the address that a
//! redirected connection wanted, and at last, on a forward proxy, the authority that the request itself names. The
//! address that a redirected connection wanted may be that of a proxy: then the request passes as it is.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::Version;
use http::uri::Authority;

use crate::config::Mode;
use crate::connection::Connection;
use crate::error::Flag;
use crate::exchange::Open;
use crate::http::headers::{Head, Upgrade};
use crate::http::pool::Upstream;
use crate::net;
use crate::rules::matcher::RequestFacts;
use crate::rules::retry::Policy;
use crate::rules::route::Route;

pub enum Destination {
    To(To),
    /// The same place under https.
    Redirect(String),
    Refuse(Flag),
}

/// An upstream, and the route that chose it.
pub struct To {
    pub upstream: Rc<Upstream>,
    pub route: Option<Rc<Route<Rc<Upstream>>>>,
    /// The upstream is a proxy that the client knows of and speaks to.
    pub proxy: bool,
}

impl To {
    pub fn record(&self, open: &Open) {
        let route = self.route.as_deref();
        let name = route.map(|route| Rc::from(route.name.as_str()));
        let opened = open.exchange().opened();
        let deadline = route.and_then(|route| route.timeout).and_then(|timeout| opened.checked_add(timeout));
        let idle = route.and_then(|route| route.idle_timeout);
        let template = route.and_then(|route| route.template.clone());
        open.exchange().routed((name, template), self.upstream.name.clone(), deadline, idle);
        self.upstream.used(opened);
    }

    /// A tunnel that begins here, and not at a proxy behind.
    pub fn is_tunnel(&self, head: &Head) -> bool {
        matches!(head.upgrade, Upgrade::Tunnel(_)) && !self.proxy
    }

    pub fn policy(&self) -> Option<&Policy> {
        self.route.as_ref()?.retry.as_ref()
    }
}

/// Where a request goes, as far as that is known without asking anybody.
pub enum Way {
    Known(Destination),
    /// To what the request names itself, which is to be looked up.
    Named(Authority, Option<u16>),
}

impl Way {
    pub fn to(&self) -> Option<&To> {
        match self {
            Way::Known(Destination::To(to)) => Some(to),
            Way::Known(Destination::Redirect(_) | Destination::Refuse(_)) | Way::Named(..) => None,
        }
    }

    /// To its end.
    pub async fn found(self, connection: &Rc<Connection>) -> Destination {
        match self {
            Way::Known(destination) => destination,
            Way::Named(authority, port) => Box::pin(named(connection, &authority, port)).await,
        }
    }
}

/// The destination of a request.
pub fn of(connection: &Rc<Connection>, head: &Head) -> Way {
    match chosen(connection, head) {
        Ok(destination) => Way::Known(destination),
        Err((authority, port)) => Way::Named(authority, port),
    }
}

/// `Err` is a name to look up, with the port of one that has none.
fn chosen(connection: &Rc<Connection>, head: &Head) -> Result<Destination, (Authority, Option<u16>)> {
    let listener = &connection.listener;
    let host = head.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if listener.https_redirect && !connection.tls.get() {
        return match secure(host, head.path.as_str()) {
            Some(location) => Ok(Destination::Redirect(location)),
            None => Ok(Destination::Refuse(Flag::BadRequest)),
        };
    }
    if let Upgrade::Tunnel(authority) = &head.upgrade
        && listener.is_forward_proxy()
    {
        return Err((authority.clone(), None));
    }
    let facts = RequestFacts { method: &head.method, host, path: head.path.path(), headers: &head.headers };
    let route = listener.routes.iter().find(|route| route.matches.matches(&facts));
    if let (None, true, Some(original)) = (route, listener.is_way_out(), connection.original)
        && is_for_proxy(head, original)
    {
        let upstream = connection.worker.upstreams.address(original);
        return Ok(Destination::To(To { upstream, route: None, proxy: true }));
    }
    if let Upgrade::Tunnel(_) = head.upgrade {
        return Ok(Destination::Refuse(Flag::Denied));
    }
    if let Some(route) = route {
        let to = To { upstream: route.upstream.clone(), route: Some(route.clone()), proxy: false };
        return Ok(Destination::To(to));
    }
    if let Some(to) = fallback(connection) {
        return Ok(to);
    }
    match &head.absolute {
        // In the clear is not what it asked for.
        Some(target) if listener.is_forward_proxy() && target.is_secure() => Ok(Destination::Refuse(Flag::BadRequest)),
        Some(target) if listener.is_forward_proxy() => Err((target.authority.clone(), Some(80))),
        _ => Ok(Destination::Refuse(Flag::NoRoute)),
    }
}

/// The destination of bytes that are no HTTP. Those without a server name fit a route that asks for nothing.
pub fn of_bytes(connection: &Rc<Connection>, server_name: Option<&str>) -> Destination {
    let name = server_name.unwrap_or_default();
    if let Some(route) = connection.listener.routes.iter().find(|route| route.matches.matches_sni(name)) {
        return Destination::To(To { upstream: route.upstream.clone(), route: Some(route.clone()), proxy: false });
    }
    fallback(connection).unwrap_or(Destination::Refuse(Flag::NoRoute))
}

fn fallback(connection: &Rc<Connection>) -> Option<Destination> {
    if let Some(upstream) = &connection.listener.upstream {
        return Some(Destination::To(To { upstream: upstream.clone(), route: None, proxy: false }));
    }
    let original = connection.original?;
    Some(Destination::To(To { upstream: connection.worker.upstreams.address(original), route: None, proxy: false }))
}

/// Whether a request is meant for a proxy at the address that its connection wanted: it asks for a tunnel, or names its
/// target in full, and that is another. A name is another, too; whoever has it must read the full form as well
/// (RFC 9112 §3.2.2).
fn is_for_proxy(head: &Head, original: SocketAddr) -> bool {
    let (authority, port) = match (&head.upgrade, &head.absolute) {
        (Upgrade::Tunnel(authority), _) if head.version != Version::HTTP_2 => (authority, None),
        (_, Some(target)) => (&target.authority, Some(if target.is_secure() { 443 } else { 80 })),
        _ => return false,
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let named = host.ok().zip(authority.port_u16().or(port)).map(SocketAddr::from);
    named.map(net::canonical) != Some(net::canonical(original))
}

/// An authority that the client named itself. Never an address of the proxy's own.
async fn named(connection: &Rc<Connection>, authority: &Authority, port: Option<u16>) -> Destination {
    let Some(port) = authority.port_u16().or(port) else { return Destination::Refuse(Flag::BadRequest) };
    let worker = &connection.worker;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let Some(upstream) = worker.upstreams.named(host, port).await else {
        return Destination::Refuse(Flag::NoHealthyEndpoint);
    };
    let own = |address: SocketAddr| worker.is_own(address);
    if upstream.endpoints().iter().any(|pooled| own(pooled.address())) {
        return Destination::Refuse(Flag::Denied);
    }
    Destination::To(To { upstream, route: None, proxy: false })
}

/// The default port of https: a port in the host was that of plain http.
fn secure(host: &str, path: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    Some(format!("https://{}{}", authority.host(), if path.starts_with('/') { path } else { "/" }))
}

impl crate::worker::listener::Listener {
    /// An outbound listener that is not transparent and has no one to send everything to is a plain forward proxy.
    pub fn is_forward_proxy(&self) -> bool {
        self.mode == Mode::Outbound && !self.transparent && self.upstream.is_none()
    }

    /// What the application sends passes here on its way to where it wants to go.
    fn is_way_out(&self) -> bool {
        self.mode == Mode::Outbound && self.transparent && self.upstream.is_none()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::Underscores;
    use crate::http::headers;

    fn head(method: &str, target: &str, version: Version) -> Head {
        let request = Request::builder().method(method).uri(target).version(version).header("host", "b");
        headers::read(request.body(()).expect("request").into_parts().0, Underscores::Keep).expect("accepted")
    }

    #[test]
    fn a_proxy_is_meant_by_what_names_another_target_than_the_address() {
        let is_for_proxy = |method, target, original: &str| {
            is_for_proxy(&head(method, target, Version::HTTP_11), original.parse().expect("an address"))
        };
        for (method, target) in [
            ("GET", "http://b/"),
            ("GET", "https://b/"),
            ("GET", "http://10.0.0.5/"),
            ("GET", "http://[::1]:3128/"),
            ("CONNECT", "b:443"),
            ("CONNECT", "10.0.0.5:443"),
            ("CONNECT", "10.0.0.6:3128"),
        ] {
            assert!(is_for_proxy(method, target, "10.0.0.5:3128"), "{method} {target}");
        }
        for (method, target, original) in [
            ("GET", "/", "10.0.0.5:3128"),
            ("OPTIONS", "*", "10.0.0.5:3128"),
            ("GET", "http://10.0.0.5:3128/", "10.0.0.5:3128"),
            ("GET", "http://10.0.0.5/", "10.0.0.5:80"),
            ("GET", "http://10.0.0.5/", "[::ffff:10.0.0.5]:80"),
            ("GET", "https://[fd00::1]/", "[fd00::1]:443"),
            ("CONNECT", "10.0.0.5:3128", "10.0.0.5:3128"),
        ] {
            assert!(!is_for_proxy(method, target, original), "{method} {target}");
        }
    }

    #[test]
    fn the_redirect_keeps_host_and_path_and_drops_the_port() {
        assert_eq!(secure("shop.example:8080", "/a?b=c").as_deref(), Some("https://shop.example/a?b=c"));
        assert_eq!(secure("[::1]:80", "*").as_deref(), Some("https://[::1]/"));
        assert_eq!(secure("a b", "/"), None);
    }
}
