//! What is wrong with what spans say and where they go.

use super::sampling::is_one;
use crate::grammar::{
    is_attribute, is_endpoint, is_grpc_endpoint, is_header, is_host, is_name, is_network, is_object, is_own_attribute,
    is_own_header,
};
use crate::problem::Check;
use crate::says;
use crate::{Attribute, Destination, Header, Propagation, Tls};

pub(crate) fn destinations(check: &mut Check, destinations: &[Destination]) {
    check.each("destinations", destinations, |check, to| {
        check.field("name", |check| check.must(is_name(&to.name), says::NAME));
        let said = [
            to.otlp_grpc.is_some(),
            to.otlp_http.is_some(),
            to.zipkin.is_some(),
            to.file.is_some(),
            to.stdout.is_some(),
        ];
        check.must(is_one(&said), says::ONE_DESTINATION);
        check.some("otlpGrpc", to.otlp_grpc.as_ref(), |check, to| {
            check.field("endpoint", |check| check.must(is_grpc_endpoint(&to.endpoint), says::GRPC_ENDPOINT));
            receiver(check, &to.endpoint, &to.headers, to.tls.as_ref());
        });
        check.some("otlpHttp", to.otlp_http.as_ref(), |check, to| {
            check.field("endpoint", |check| check.must(is_endpoint(&to.endpoint), says::ENDPOINT));
            receiver(check, &to.endpoint, &to.headers, to.tls.as_ref());
        });
        check.some("zipkin", to.zipkin.as_ref(), |check, to| {
            check.field("endpoint", |check| check.must(is_endpoint(&to.endpoint), says::ENDPOINT));
            receiver(check, &to.endpoint, &to.headers, to.tls.as_ref());
        });
        check.some("only", to.only.as_ref(), |check, only| {
            check.must(!only.namespaces.is_empty() || !only.services.is_empty(), says::SOME_ONLY);
            let good = only.namespaces.iter().all(|name| is_object(name));
            check.field("namespaces", |check| check.must(good, says::OBJECTS));
        });
    });
}

fn receiver(check: &mut Check, endpoint: &str, headers: &[Header], tls: Option<&Tls>) {
    check.must(tls.is_none() || endpoint.starts_with("https://"), says::TLS);
    check.each("headers", headers, |check, header| {
        check.field("name", |check| {
            check.must(is_header(&header.name), says::HEADER);
            check.must(!is_own_header(&header.name), says::OWN_HEADER);
        });
        let said = [header.value.is_some(), header.variable.is_some(), header.file.is_some()];
        check.must(is_one(&said), says::ONE_VALUE);
    });
    check.some("tls", tls, |check, tls| {
        check.some("serverName", tls.server_name.as_ref(), |check, name| check.must(is_host(name), says::SERVER));
    });
}

pub(crate) fn propagation(check: &mut Check, propagation: &Propagation) {
    let good = propagation.stranger_baggage.iter().all(|key| is_header(key));
    check.field("strangerBaggage", |check| check.must(good, says::BAGGAGES));
    check.some("mesh", propagation.mesh.as_ref(), |check, networks| {
        check.must(networks.iter().all(|network| is_network(network)), says::NETWORKS);
    });
}

pub(crate) fn attributes(check: &mut Check, attributes: &[Attribute]) {
    check.each("attributes", attributes, |check, attribute| {
        let Attribute { name, request_header, response_header, baggage, variable, value } = attribute;
        let has_header = request_header.is_some() || response_header.is_some();
        let said = [
            request_header.is_some(),
            response_header.is_some(),
            baggage.is_some(),
            variable.is_some(),
            value.is_some(),
        ];
        check.must(is_one(&said), says::ONE_SOURCE);
        check.must(name.is_some() || has_header, says::NAMED_ATTRIBUTE);
        check.some("name", name.as_ref(), |check, name| {
            check.must(is_attribute(name), says::ATTRIBUTE);
            check.must(!is_own_attribute(name), says::OWN_ATTRIBUTE);
        });
        for (field, header) in [("requestHeader", request_header), ("responseHeader", response_header)] {
            check.some(field, header.as_ref(), |check, header| check.must(is_header(header), says::HEADER));
        }
        check.some("baggage", baggage.as_ref(), |check, key| check.must(is_header(key), says::BAGGAGE));
    });
}
