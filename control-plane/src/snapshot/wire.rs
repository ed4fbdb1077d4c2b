//! The only writer of wire messages: resources in, messages out. Texts were checked when the resource was accepted; one that
//! is wrong all the same says nothing.

use std::time::Duration;

use spanmesh_crds as crds;
use spanmesh_proto::v1;

use super::merge::{Merged, Of};
use crate::adaptive::threshold;
use crate::cluster::Resource;
use crate::picture::Seat;

pub fn chain(merged: &Merged) -> v1::Chain {
    let parent = match merged.parent {
        None => v1::Parent::Unspecified,
        Some(crds::Parent::Respect) => v1::Parent::Respect,
        Some(crds::Parent::Ignore) => v1::Parent::Ignore,
    };
    v1::Chain {
        parent: parent.into(),
        rules: merged.rules.iter().map(rule).collect(),
        boosts: merged.boosts.iter().map(boost).collect(),
        keeps: merged.keeps.iter().map(keep).collect(),
    }
}

fn rule(of: &Of<crds::HeadRule>) -> v1::Rule {
    use v1::rule::Action;
    let crds::Action { never, always, probability, rate_limit, adaptive } = &of.rule.action;
    let action = [
        never.map(|_| Action::Never(v1::Empty {})),
        always.map(|_| Action::Always(v1::Empty {})),
        probability.as_ref().map(kept),
        rate_limit.as_ref().map(|limit| {
            Action::RateLimit(v1::RateLimit {
                traces_per_second: limit.traces_per_second.into(),
                burst: limit.burst.unwrap_or(limit.traces_per_second),
                per_proxy: limit.per_proxy,
            })
        }),
        adaptive.as_ref().map(|adaptive| {
            Action::Adaptive(v1::Adaptive {
                spans_per_second: adaptive.spans_per_second.into(),
                min_traces_per_minute: adaptive.min_traces_per_minute.into(),
                min_probability: adaptive.min_probability.parse().unwrap_or_default(),
            })
        }),
    ];
    v1::Rule {
        policy: of.policy.clone(),
        generation: of.generation,
        name: of.rule.name.clone(),
        r#match: of.rule.matching.as_ref().map(matching),
        action: action.into_iter().flatten().next(),
    }
}

fn boost(of: &Of<crds::BoostRule>) -> v1::Rule {
    let action = &of.rule.action;
    v1::Rule {
        policy: of.policy.clone(),
        generation: of.generation,
        name: of.rule.name.clone(),
        r#match: of.rule.matching.as_ref().map(matching),
        action: action
            .always
            .map(|_| v1::rule::Action::Always(v1::Empty {}))
            .or_else(|| action.probability.as_ref().map(kept)),
    }
}

fn kept(probability: &crds::Probability) -> v1::rule::Action {
    match probability.parse().ok().map(threshold::threshold) {
        Some(threshold) => v1::rule::Action::Threshold(threshold),
        None => v1::rule::Action::Never(v1::Empty {}),
    }
}

fn keep(of: &Of<crds::Keep>) -> v1::Keep {
    let crds::Keep { name, when: on, fraction, limit } = &of.rule;
    let range = |range: &crds::StatusRange| {
        range.parse().ok().map(|(first, last)| v1::StatusRange { first: first.into(), last: last.into() })
    };
    v1::Keep {
        policy: of.policy.clone(),
        generation: of.generation,
        name: name.clone(),
        http_status: on.http_status.iter().flatten().filter_map(range).collect(),
        errors: on.errors.is_some(),
        grpc_errors: on.grpc_status.is_some(),
        response_flags: on.response_flags.iter().flatten().map(|flag| flag.word().to_owned()).collect(),
        latency: on.latency.as_ref().map_or(0, |latency| micros(&latency.threshold)),
        retries: on.retries.as_ref().map_or(0, |retries| retries.min.max(1)),
        threshold: fraction.parse().ok().map(threshold::threshold).unwrap_or_default(),
        traces_per_second: limit.traces_per_second.into(),
        burst: limit.burst,
    }
}

fn micros(period: &crds::Period) -> u64 {
    let micros = period.parse().unwrap_or(Duration::ZERO).as_micros();
    u64::try_from(micros).unwrap_or(u64::MAX)
}

fn matching(written: &crds::Match) -> v1::Match {
    let crds::Match { method, path, host, route, headers, grpc, source, destination, baggage } = written;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let fields = |fields: &[crds::ValueMatch]| {
        let field = |field: &crds::ValueMatch| v1::Field { name: field.name.clone(), value: field.value.clone() };
        fields.iter().map(field).collect()
    };
    let party = |party: &crds::Party| v1::Party { service: text(&party.service), namespace: text(&party.namespace) };
    v1::Match {
        method: text(method),
        path: path.as_ref().map(|path| {
            use v1::path_match::Path;
            let value = path.value.clone();
            let path = match path.kind {
                crds::PathKind::Exact => Path::Exact(value),
                crds::PathKind::Prefix => Path::Prefix(value),
                crds::PathKind::Template => Path::Template(value),
            };
            v1::PathMatch { path: Some(path) }
        }),
        host: text(host),
        route: text(route),
        headers: fields(headers),
        grpc_service: grpc.as_ref().map(|grpc| text(&grpc.service)).unwrap_or_default(),
        grpc_method: grpc.as_ref().map(|grpc| text(&grpc.method)).unwrap_or_default(),
        source: source.as_ref().map(party),
        destination: destination.as_ref().map(party),
        baggage: fields(baggage),
    }
}

pub fn capture(capture: &Resource<crds::TraceCaptureSpec>) -> v1::Capture {
    v1::Capture {
        r#match: capture.spec.matching.as_ref().map(matching),
        until: 0,
        generation: capture.meta.generation,
        sides: Vec::new(),
    }
}

pub fn propagation(written: &crds::Propagation) -> v1::Propagation {
    let words = |formats: &[crds::Format]| formats.iter().map(|format| format.word().to_owned()).collect();
    v1::Propagation {
        extract: words(&written.extract),
        inject: words(&written.inject),
        clear: words(&written.clear),
        normalise: Some(written.normalise),
        baggage: Some(written.baggage),
        stranger_baggage: written.stranger_baggage.clone(),
        outside_baggage: Some(written.outside_baggage),
        mesh: written.mesh.clone().unwrap_or_default(),
        infer_parent: Some(written.infer_parent),
        request_id: Some(written.request_id),
    }
}

pub fn redaction(written: &crds::Redaction) -> v1::Redaction {
    v1::Redaction {
        query: written.query.clone(),
        patterns: Some(v1::Patterns {
            names: written.patterns.iter().map(|pattern| pattern.word().to_owned()).collect(),
        }),
        hash_key_file: written.hash_key_file.clone().unwrap_or_default(),
    }
}

pub fn attribute(written: &crds::Attribute) -> v1::Attribute {
    use v1::attribute::From;
    let from = [
        written.request_header.clone().map(From::RequestHeader),
        written.response_header.clone().map(From::ResponseHeader),
        written.baggage.clone().map(From::Baggage),
        written.variable.clone().map(From::Variable),
        written.value.clone().map(From::Value),
    ];
    v1::Attribute { name: written.name.clone().unwrap_or_default(), from: from.into_iter().flatten().next() }
}

pub fn guard(safety: &crds::Safety) -> v1::Guard {
    v1::Guard { spans_per_second: safety.guard_spans_per_second.into() }
}

/// Those that are for this proxy.
pub fn destinations(written: &[crds::Destination], seat: &Seat) -> Vec<v1::Destination> {
    let lists = |list: &[String], own: &str| list.is_empty() || list.iter().any(|name| name == own);
    let mine = written.iter().filter(|destination| {
        let only = destination.only.as_ref();
        only.is_none_or(|only| lists(&only.namespaces, &seat.namespace) && lists(&only.services, &seat.service))
    });
    mine.map(destination).collect()
}

fn destination(written: &crds::Destination) -> v1::Destination {
    use v1::destination::To;
    let crds::Destination { name, otlp_grpc, otlp_http, zipkin, file, stdout, only: _ } = written;
    let to = [
        otlp_grpc.as_ref().map(|to| {
            To::OtlpGrpc(v1::OtlpGrpc {
                endpoint: to.endpoint.clone(),
                gzip: to.compression == crds::Compression::Gzip,
                headers: to.headers.iter().map(header).collect(),
                tls: to.tls.as_ref().map(tls),
            })
        }),
        otlp_http.as_ref().map(|to| {
            To::OtlpHttp(v1::OtlpHttp {
                endpoint: to.endpoint.clone(),
                gzip: to.compression == crds::Compression::Gzip,
                json: to.encoding == crds::OtlpEncoding::Json,
                headers: to.headers.iter().map(header).collect(),
                tls: to.tls.as_ref().map(tls),
            })
        }),
        zipkin.as_ref().map(|to| {
            To::Zipkin(v1::Zipkin {
                endpoint: to.endpoint.clone(),
                gzip: to.compression == crds::Compression::Gzip,
                headers: to.headers.iter().map(header).collect(),
                tls: to.tls.as_ref().map(tls),
            })
        }),
        file.as_ref().map(|file| To::File(file.path.clone())),
        stdout.map(|_| To::Stdout(v1::Empty {})),
    ];
    v1::Destination {
        name: name.clone(),
        to: to.into_iter().flatten().next(),
        namespaces: Vec::new(),
        services: Vec::new(),
    }
}

fn header(written: &crds::Header) -> v1::Header {
    use v1::header::From;
    let from = [
        written.value.clone().map(From::Value),
        written.variable.clone().map(From::Variable),
        written.file.clone().map(From::File),
    ];
    v1::Header { name: written.name.clone(), from: from.into_iter().flatten().next() }
}

fn tls(written: &crds::Tls) -> v1::Tls {
    v1::Tls {
        root_file: written.root_file.clone().unwrap_or_default(),
        server_name: written.server_name.clone().unwrap_or_default(),
    }
}
