//! Why one rule decides and the others do not: for people, off the road. Each condition is asked alone, by the same test
//! that a request meets, and the rule that comes out is compared with what the engine says, so that the two cannot disagree.

use http::header::HeaderMap;

use super::ask::{Request, Service, Test, rpc};
use super::engine::Engine;
use super::index::RULES;
use super::plan::{Action, Chain, Id, Plan, Rule};
use crate::config::{Match, Mode, ParentDecision, Party, PathKind};
use crate::rules::matcher::host_of;

/// How the rules of a proxy see one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What a caller's decision counts for.
    pub parent: ParentDecision,
    /// Captures of the proxy, by name, and what keeps each from taking the request.
    pub captures: Vec<(String, Vec<Miss>)>,
    /// In the order in which they are asked.
    pub rules: Vec<Asked>,
    /// Of what was not kept so far; all are asked.
    pub boosts: Vec<Asked>,
    /// Asked at the end of a request that was not kept.
    pub keeps: Vec<Id>,
}

/// A rule, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub id: Id,
    pub whose: Whose,
    pub action: Action,
    pub outcome: Outcome,
}

/// Why a rule stands where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The proxy's own, for calls to some destination.
    OwnForDestination,
    /// Of policies for the destination.
    Destination,
    Own,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All that it asks holds.
    Holds,
    /// What of it does not hold.
    Misses(Vec<Miss>),
    /// A rule before it has decided.
    NotAsked,
    /// The proxy cannot use it, and why.
    Refused(String),
}

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// As a policy has it: `path`, `headers[1]`.
    pub field: String,
    pub wanted: String,
    /// What the request has instead; empty is nothing.
    pub found: String,
}

impl Explanation {
    /// The rule that decides where a trace begins.
    pub fn decides(&self) -> Option<&Asked> {
        self.rules.iter().find(|asked| asked.outcome == Outcome::Holds)
    }
}

/// `believed`: what proxies say in headers of their own comes from one. `Err` if the engine decides otherwise.
pub fn explain(plan: &Plan, request: &Request<'_>, headers: &HeaderMap, believed: bool) -> Result<Explanation, String> {
    let engine = Engine::new(plan);
    let theirs = destination(plan, request);
    let mut walk = Walk { request, headers, believed, rules: Vec::new(), is_decided: false };
    let own = plan.own.rules.iter().take(RULES);
    match theirs {
        Some(theirs) => {
            let (destined, others): (Vec<_>, Vec<_>) = own.partition(|rule| rule.match_.destination.is_some());
            walk.ask(destined.into_iter(), Whose::OwnForDestination);
            walk.ask(theirs.rules.iter().take(RULES), Whose::Destination);
            walk.ask(others.into_iter(), Whose::Own);
        }
        None => walk.ask(own, Whose::Own),
    }
    let rules = walk.rules;
    let boosts = plan.own.boosts.iter().map(|rule| (rule, Whose::Own));
    let boosts =
        boosts.chain(theirs.into_iter().flat_map(|chain| &chain.boosts).map(|rule| (rule, Whose::Destination)));
    let boosts = boosts.map(|(rule, whose)| asked(rule, whose, outcome(&rule.match_, request, headers, believed)));
    let keeps = plan.own.keeps.iter().chain(theirs.into_iter().flat_map(|chain| &chain.keeps));
    let captures =
        plan.captures.iter().filter(|capture| capture.sides.is_empty() || capture.sides.contains(&request.side));
    let captures = captures.filter_map(|capture| match outcome(&capture.match_, request, headers, believed) {
        Outcome::Holds => Some((capture.name.to_string(), Vec::new())),
        Outcome::Misses(misses) => Some((capture.name.to_string(), misses)),
        Outcome::NotAsked | Outcome::Refused(_) => None,
    });
    let explanation = Explanation {
        parent: plan.own.parent,
        captures: captures.collect(),
        rules,
        boosts: boosts.collect(),
        keeps: keeps.map(|keep| keep.id.clone()).collect(),
    };
    let choice = engine.head(request, headers, believed, engine.chain(request));
    let decides = choice.and_then(|choice| engine.id(choice.seat));
    match explanation.decides().map(|asked| &asked.id) == decides {
        true => Ok(explanation),
        false => Err(format!("the proxy would decide by {decides:?}; this is a mistake of Spanmesh, please report it")),
    }
}

/// What holds at callers of where the request goes.
fn destination<'a>(plan: &'a Plan, request: &Request<'_>) -> Option<&'a Chain> {
    let to = request.destination.filter(|_| request.side != Mode::Inbound)?;
    let named = |name: &str| Service::parse(name).is_some_and(|name| name.is(to));
    plan.destinations.iter().find(|(name, _)| named(name)).map(|(_, chain)| chain)
}

struct Walk<'a> {
    request: &'a Request<'a>,
    headers: &'a HeaderMap,
    believed: bool,
    rules: Vec<Asked>,
    is_decided: bool,
}

impl Walk<'_> {
    fn ask<'r>(&mut self, rules: impl Iterator<Item = &'r Rule>, whose: Whose) {
        for rule in rules {
            let outcome = match self.is_decided {
                true => Outcome::NotAsked,
                false => outcome(&rule.match_, self.request, self.headers, self.believed),
            };
            self.is_decided |= outcome == Outcome::Holds;
            self.rules.push(asked(rule, whose, outcome));
        }
    }
}

fn asked(rule: &Rule, whose: Whose, outcome: Outcome) -> Asked {
    Asked { id: rule.id.clone(), whose, action: rule.action, outcome }
}

fn outcome(written: &Match, request: &Request<'_>, headers: &HeaderMap, believed: bool) -> Outcome {
    match Test::compile(written) {
        Err(error) => Outcome::Refused(error.to_string()),
        Ok(test) if test.holds(request, headers, believed) => Outcome::Holds,
        Ok(_) => {
            let fails = |one: &Match| Test::compile(one).is_ok_and(|test| !test.holds(request, headers, believed));
            let parts = parts(written, request, headers);
            Outcome::Misses(parts.into_iter().filter(|(one, _)| fails(one)).map(|(_, miss)| miss).collect())
        }
    }
}

/// Each condition alone, and what is to be said if it does not hold.
fn parts(written: &Match, request: &Request<'_>, headers: &HeaderMap) -> Vec<(Match, Miss)> {
    let Match { method, path, host, route, headers: fields, grpc, source, destination, baggage } = written.clone();
    let none = Match::default;
    let mut parts = Vec::new();
    let mut part = |one: Match, field: &str, wanted: String, found: String| {
        parts.push((one, Miss { field: field.to_owned(), wanted, found }));
    };
    if let Some(wanted) = &method {
        let found = request.method.map(|method| method.as_str().to_owned()).unwrap_or_default();
        part(Match { method: method.clone(), ..none() }, "method", wanted.clone(), found);
    }
    if let Some(wanted) = &path {
        let how = match wanted.kind {
            PathKind::Exact => "",
            PathKind::Prefix => "below ",
            PathKind::Template => "like ",
        };
        let text = format!("{how}{}", wanted.value);
        part(Match { path: path.clone(), ..none() }, "path", text, request.path.to_owned());
    }
    if let Some(wanted) = &host {
        part(Match { host: host.clone(), ..none() }, "host", wanted.clone(), host_of(request.host).to_owned());
    }
    if let Some(wanted) = &route {
        let found = request.route.unwrap_or_default().to_owned();
        part(Match { route: route.clone(), ..none() }, "route", wanted.clone(), found);
    }
    if let Some(wanted) = &grpc {
        let any = |text: &Option<String>| text.clone().unwrap_or_else(|| ANY.to_owned());
        let text = format!("{}/{}", any(&wanted.service), any(&wanted.method));
        let found = rpc(request).map(|(service, method)| format!("{service}/{method}")).unwrap_or_default();
        part(Match { grpc: grpc.clone(), ..none() }, "grpc", text, found);
    }
    let there = |service: Option<Service<'_>>| {
        service.map(|service| format!("{}.{}", service.name, service.namespace)).unwrap_or_default()
    };
    if let Some(wanted) = &source {
        part(Match { source: source.clone(), ..none() }, "source", party(wanted), there(request.source));
    }
    if let Some(wanted) = &destination {
        let found = there(request.destination);
        part(Match { destination: destination.clone(), ..none() }, "destination", party(wanted), found);
    }
    let sent = |name: &str| {
        let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
        lines.collect::<Vec<_>>().join(", ")
    };
    let said = |name: &str, value: Option<&String>| match value {
        Some(value) => format!("{name}={value}"),
        None => name.to_owned(),
    };
    for (place, field) in fields.iter().enumerate() {
        let wanted = said(&field.name, field.value.as_ref());
        let one = Match { headers: vec![field.clone()], ..none() };
        part(one, &format!("headers[{place}]"), wanted, sent(&field.name));
    }
    for (place, member) in baggage.iter().enumerate() {
        let wanted = said(&member.name, member.value.as_ref());
        let one = Match { baggage: vec![member.clone()], ..none() };
        part(one, &format!("baggage[{place}]"), wanted, sent("baggage"));
    }
    parts
}

fn party(party: &Party) -> String {
    let any = |text: &Option<String>| text.clone().unwrap_or_else(|| ANY.to_owned());
    format!("{}.{}", any(&party.service), any(&party.namespace))
}

const ANY: &str = "*";

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::config::HeaderMatch;

    fn rule(name: &str, match_: Match) -> Rule {
        Rule { id: Id::new("shop/p", name, 1), match_, action: Action::Always }
    }

    fn to(service: &str) -> Option<Party> {
        Some(Party { service: Some(service.into()), namespace: None })
    }

    #[test]
    fn rules_are_explained_in_the_order_of_the_engine_and_each_miss_is_named() {
        let gold = HeaderMatch { name: "x-tier".into(), value: Some("gold".into()) };
        let post = Match { method: Some("POST".into()), headers: vec![gold], ..Match::default() };
        let own = Chain {
            rules: vec![
                rule("rest", Match::default()),
                rule("elsewhere", Match { destination: to("orders"), ..Match::default() }),
            ],
            ..Chain::default()
        };
        let theirs = Chain { rules: vec![rule("posts", post), rule("theirs", Match::default())], ..Chain::default() };
        let mut plan = Plan { own, ..Plan::default() };
        plan.destinations.insert("pay.shop".into(), theirs);
        let request = Request {
            method: Some(&Method::GET),
            path: "/",
            destination: Service::parse("Pay.shop"),
            ..Request::NOTHING
        };
        let explained = explain(&plan, &request, &HeaderMap::new(), true).unwrap();
        let seen: Vec<_> = explained.rules.iter().map(|asked| (&*asked.id.rule, asked.whose)).collect();
        let expected = [
            ("elsewhere", Whose::OwnForDestination),
            ("posts", Whose::Destination),
            ("theirs", Whose::Destination),
            ("rest", Whose::Own),
        ];
        assert_eq!(seen, expected);
        let Outcome::Misses(misses) = &explained.rules[1].outcome else { panic!("{:?}", explained.rules[1]) };
        let fields: Vec<_> = misses.iter().map(|miss| (miss.field.as_str(), miss.found.as_str())).collect();
        assert_eq!(fields, [("method", "GET"), ("headers[0]", "")]);
        assert_eq!(explained.decides().map(|asked| &*asked.id.rule), Some("theirs"));
        assert_eq!(explained.rules[3].outcome, Outcome::NotAsked);
        // At the service itself its callers' rules say nothing.
        let inbound = Request { side: Mode::Inbound, ..request };
        let explained = explain(&plan, &inbound, &HeaderMap::new(), true).unwrap();
        assert_eq!(explained.rules.iter().map(|asked| &*asked.id.rule).collect::<Vec<_>>(), ["rest", "elsewhere"]);
    }
}
