//! What is wrong with a sampling block, or with a match.

use crate::grammar::{is_header, is_host_pattern, is_method, is_name, is_object, is_path, is_template};
use crate::problem::Check;
use crate::says;
use crate::{Action, Head, Keep, Match, Party, PathKind, PathMatch, Probability, Sampling, ValueMatch};

pub(crate) fn look(check: &mut Check, sampling: &Sampling) {
    let says = sampling.parent.is_some() || sampling.head.is_some() || sampling.keep.is_some();
    check.must(says, says::SOME_SAMPLING);
    check.some("head", sampling.head.as_ref(), head);
    check.each("keep", sampling.keep.as_deref().unwrap_or_default(), keep);
}

fn head(check: &mut Check, head: &Head) {
    check.must(!head.rules.is_empty() || !head.boost.is_empty(), says::SOME_HEAD);
    let is_last = head.rules.iter().rev().skip(1).all(|rule| rule.matching.is_some());
    check.field("rules", |check| check.must(is_last, says::LAST_RULE));
    check.each("rules", &head.rules, |check, rule| {
        name(check, &rule.name);
        check.some("match", rule.matching.as_ref(), matching);
        check.field("action", |check| action(check, &rule.action));
    });
    check.each("boost", &head.boost, |check, boost| {
        name(check, &boost.name);
        if head.rules.iter().any(|rule| rule.name == boost.name) {
            check
                .field("name", |check| check.wrong("a rule has this name too: whoever reads it must know which it is"));
        }
        check.some("match", boost.matching.as_ref(), matching);
        check.field("action", |check| {
            check.must(boost.action.always.is_some() != boost.action.probability.is_some(), says::ONE_BOOST);
            check.some("probability", boost.action.probability.as_ref(), probability);
        });
    });
}

fn action(check: &mut Check, action: &Action) {
    let Action { never, always, probability: part, rate_limit, adaptive } = action;
    let said = [never.is_some(), always.is_some(), part.is_some(), rate_limit.is_some(), adaptive.is_some()];
    check.must(is_one(&said), says::ONE_ACTION);
    check.some("probability", part.as_ref(), probability);
    check.some("adaptive", adaptive.as_ref(), |check, adaptive| {
        check.field("minProbability", |check| probability(check, &adaptive.min_probability));
    });
}

fn keep(check: &mut Check, keep: &Keep) {
    name(check, &keep.name);
    check.field("when", |check| {
        let on = &keep.when;
        let said = [
            on.errors.is_some(),
            on.http_status.is_some(),
            on.grpc_status.is_some(),
            on.response_flags.is_some(),
            on.latency.is_some(),
            on.retries.is_some(),
        ];
        check.must(is_one(&said), says::ONE_ENDING);
        check.each("httpStatus", on.http_status.as_deref().unwrap_or_default(), |check, range| {
            check.must(range.parse().is_ok(), says::STATUS_RANGE);
        });
        check.some("latency", on.latency.as_ref(), |check, latency| {
            let fits = latency.threshold.parse().is_ok_and(|time| (1..=3_600_000).contains(&time.as_millis()));
            check.field("threshold", |check| check.must(fits, says::LATENCY));
        });
    });
    check.field("fraction", |check| probability(check, &keep.fraction));
}

pub(crate) fn matching(check: &mut Check, matching: &Match) {
    check.must(*matching != Match::default(), says::SOME_MATCH);
    check.some("method", matching.method.as_ref(), |check, method| check.must(is_method(method), says::METHOD));
    check.some("path", matching.path.as_ref(), path);
    check.some("host", matching.host.as_ref(), |check, host| check.must(is_host_pattern(host), says::HOST));
    check.some("route", matching.route.as_ref(), |check, route| check.must(is_name(route), says::NAME));
    check.each("headers", &matching.headers, field);
    check.each("baggage", &matching.baggage, field);
    check.some("grpc", matching.grpc.as_ref(), |check, grpc| {
        check.must(grpc.service.is_some() || grpc.method.is_some(), says::SOME_GRPC);
        check.some("service", grpc.service.as_ref(), |check, service| check.must(is_name(service), says::NAME));
        check.some("method", grpc.method.as_ref(), |check, method| check.must(is_name(method), says::NAME));
    });
    check.some("source", matching.source.as_ref(), party);
    check.some("destination", matching.destination.as_ref(), party);
}

fn path(check: &mut Check, path: &PathMatch) {
    check.must(is_path(&path.value), says::PATH);
    let fits = match path.kind {
        PathKind::Template => is_template(&path.value),
        PathKind::Exact | PathKind::Prefix => !path.value.contains(['{', '}']),
    };
    check.must(fits, says::TEMPLATE);
}

fn field(check: &mut Check, field: &ValueMatch) {
    check.field("name", |check| check.must(is_header(&field.name), says::HEADER));
}

fn party(check: &mut Check, party: &Party) {
    check.must(party.service.is_some() || party.namespace.is_some(), says::SOME_PARTY);
    check.some("service", party.service.as_ref(), |check, service| check.must(is_object(service), says::OBJECT));
    check.some("namespace", party.namespace.as_ref(), |check, name| check.must(is_object(name), says::OBJECT));
}

fn name(check: &mut Check, name: &str) {
    check.field("name", |check| check.must(is_name(name), says::NAME));
}

fn probability(check: &mut Check, probability: &Probability) {
    check.must(probability.parse().is_ok(), says::PROBABILITY);
}

pub(super) fn is_one(said: &[bool]) -> bool {
    said.iter().filter(|is| **is).count() == 1
}
