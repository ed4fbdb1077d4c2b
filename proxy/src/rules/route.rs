//! The route table of a listener: the first route whose conditions hold takes the request.
//!
//! It knows what a route asks for, not how an upstream is reached: `U` is whatever the caller hangs on a route, its
//! name while reading the file, its handle on the road.

use std::rc::Rc;
use std::time::Duration;

use super::matcher::{Matcher, RequestFacts};
use super::retry::Policy;

#[derive(Clone, Debug)]
pub struct RouteTable<U> {
    pub routes: Vec<Route<U>>,
}

#[derive(Clone, Debug)]
pub struct Route<U> {
    pub name: String,
    pub matches: Matcher,
    pub upstream: U,
    /// Its exact path or its template: of few values, so that spans are named by it.
    pub template: Option<Rc<str>>,
    /// For the whole request, attempts and waits included.
    pub timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub retry: Option<Policy>,
}

impl<U> RouteTable<U> {
    pub fn find(&self, facts: &RequestFacts<'_>) -> Option<&Route<U>> {
        self.routes.iter().find(|route| route.matches.matches(facts))
    }

    /// For TLS that is passed through: a route with a fitting `sni`, or one that asks nothing at all.
    pub fn find_sni(&self, name: &str) -> Option<&Route<U>> {
        self.routes.iter().find(|route| route.matches.matches_sni(name))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::matcher::Patterns;
    use super::*;

    fn route(name: &str, patterns: Patterns) -> Route<()> {
        let matches = Matcher::compile(&patterns).unwrap();
        Route {
            name: name.into(),
            matches,
            upstream: (),
            template: None,
            timeout: None,
            idle_timeout: None,
            retry: None,
        }
    }

    fn table() -> RouteTable<()> {
        RouteTable {
            routes: vec![
                route("items", Patterns { path_prefix: Some("/cart/items".into()), ..Patterns::default() }),
                route("cart", Patterns { path_prefix: Some("/cart".into()), ..Patterns::default() }),
                route("db", Patterns { sni: Some("db.example".into()), ..Patterns::default() }),
                route("rest", Patterns { host: Some("shop.example".into()), ..Patterns::default() }),
            ],
        }
    }

    #[test]
    fn the_first_match_wins() {
        let (table, headers) = (table(), HeaderMap::new());
        for (host, path, expected) in [
            ("shop.example", "/cart/items/7", Some("items")),
            ("shop.example", "/cart", Some("cart")),
            ("shop.example", "/", Some("rest")),
            ("db.example", "/", None),
        ] {
            let facts = RequestFacts { method: &Method::GET, host, path, headers: &headers };
            assert_eq!(table.find(&facts).map(|route| route.name.as_str()), expected, "{host}{path}");
        }
    }

    #[test]
    fn passed_through_tls_sees_only_its_own_routes() {
        assert_eq!(table().find_sni("db.example").unwrap().name, "db");
        assert!(table().find_sni("shop.example").is_none());
    }
}
