//! What a resource must hold beyond its schema's bounds: asked in CEL by an API server and in Rust by `problems`, and said
//! in the same words by both. A grammar stands here and not as a `pattern`, because a pattern's message helps nobody.
//!
//! CEL has a budget: whatever a rule reads is bounded in the schema, and no rule has one loop in another.

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub cel: &'static str,
    pub says: &'static str,
}

/// For `x-kubernetes-validations`.
pub fn cel(rules: &[Rule]) -> Value {
    rules.iter().map(|rule| json!({"rule": rule.cel, "message": rule.says})).collect()
}

macro_rules! rules {
    ($($NAME:ident: $says:literal, $cel:literal;)+) => {
        $(pub const $NAME: Rule = Rule { cel: $cel, says: $says };)+
        #[cfg(test)]
        pub const ALL: &[Rule] = &[$($NAME),+];
    };
}

rules! {
    // Texts.
    PROBABILITY: "write a decimal above 0 and at most 1, such as \"0.05\" or \"1e-5\"; for none of them `never: {}`",
        "self.matches('^[0-9]+([.][0-9]+|e-[0-9]+)?$') && double(self) <= 1.0 && double(self) >= 1.4e-17";
    STATUS_RANGE: "write a status of HTTP, \"429\", or the first and the last of several, \"500-599\"",
        "self.matches('^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$') && (self.size() == 3 || self.substring(0, 3) <= self.substring(4))";
    LATENCY: "write at least `1ms` and at most `1h`: a whole number and `ms`, `s`, `m` or `h`, such as `500ms`",
        "self.matches('^[0-9]{1,6}(ms|s|m|h)$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')";
    CAPTURE_TIME: "write at least `1s` and at most `1h`: a whole number and `ms`, `s`, `m` or `h`, such as `10m`",
        "self.matches('^[0-9]{1,6}(ms|s|m|h)$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')";
    NAME: "a name has letters, digits, `-`, `_` and `.`, and begins with a letter or digit",
        "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')";
    OBJECT: "write the name as `kubectl get` shows it: small letters, digits, `-` and `.`",
        "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')";
    OBJECTS: "write the names as `kubectl get` shows them: small letters, digits, `-` and `.`",
        "self.all(name, name.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$'))";
    METHOD: "write a method as it is sent, in capital letters: `GET`",
        "self.matches('^[A-Z0-9!#$%&*+.^_|~-]+$')";
    HOST: "write a host without port, `shop.example`, or all hosts below a domain, `*.shop.example`",
        "self.matches('^([*][.])?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$') || self.matches('^\\\\[[0-9A-Fa-f:.]+\\\\]$')";
    SERVER: "write a host without port, `collector.obs`",
        "self.matches('^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$')";
    HEADER: "write a header's name, without spaces and `:`, such as `x-tenant`",
        "self.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$')";
    BAGGAGE: "write a key of baggage as it stands before `=` in the header, such as `user.id`",
        "self.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$')";
    BAGGAGES: "write keys of baggage as they stand before `=` in the header, such as `user.id`",
        "self.all(key, key.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$'))";
    OWN_HEADER: "this header is set by HTTP or by OTLP itself: leave it out",
        "!(self.lowerAscii() in ['host', 'connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'expect', 'keep-alive']) && !self.lowerAscii().matches('^(content|grpc)-')";
    PATH: "a path begins with `/`, ends before `?` and `#`, and has no spaces",
        "self.value.matches('^/[^?# ]*$')";
    TEMPLATE: "a template has whole segments such as `{id}`, and other paths have no `{`: write `/carts/{id}` with type Template, `/carts` with type Exact or Prefix",
        "(self.type == 'Template') == self.value.matches('/[{][A-Za-z_]')";
    ENDPOINT: "write `http://` or `https://`, a host, a port and perhaps a path: `http://collector:4318`",
        "self.matches('^https?://[^/?#@ ]+(/[^?# ]*)?$')";
    GRPC_ENDPOINT: "write `http://` or `https://`, a host and a port, without a path: `http://collector:4317`",
        "self.matches('^https?://[^/?#@ ]+/?$')";
    TLS: "tls is for an endpoint that begins with `https://`: change the endpoint or leave tls out",
        "!has(self.tls) || self.endpoint.startsWith('https://')";
    NETWORKS: "write networks, `10.0.0.0/8` or `fd00::/8`, or single addresses",
        "self.all(network, isCIDR(network) || isIP(network))";
    ATTRIBUTE: "write a name such as `tenant` or `shop.tenant`: small letters, digits, `_` and `-`, in words parted by `.`",
        "self.matches('^[a-z][a-z0-9_-]*([.][a-z][a-z0-9_-]*)*$')";
    OWN_ATTRIBUTE: "the proxy gives attributes of this name itself: begin with another word",
        "!self.matches('^(client|error|http|jaeger-debug-id|network|rpc|server|spanmesh|url|user_agent)([.]|$)')";

    // One of several.
    ONE_ACTION: "write exactly one of never, always, probability, rateLimit and adaptive",
        "[has(self.never), has(self.always), has(self.probability), has(self.rateLimit), has(self.adaptive)].exists_one(is, is)";
    ONE_BOOST: "write exactly one of always and probability",
        "has(self.always) != has(self.probability)";
    ONE_ENDING: "write exactly one of errors, httpStatus, grpcStatus, responseFlags, latency and retries; several conditions are several entries",
        "[has(self.errors), has(self.httpStatus), has(self.grpcStatus), has(self.responseFlags), has(self.latency), has(self.retries)].exists_one(is, is)";
    ONE_DESTINATION: "write exactly one of otlpGrpc, otlpHttp, zipkin, file and stdout; others are destinations of their own",
        "[has(self.otlpGrpc), has(self.otlpHttp), has(self.zipkin), has(self.file), has(self.stdout)].exists_one(is, is)";
    ONE_VALUE: "write exactly one of value, variable and file",
        "[has(self.value), has(self.variable), has(self.file)].exists_one(is, is)";
    ONE_SOURCE: "write exactly one of requestHeader, responseHeader, baggage, variable and value",
        "[has(self.requestHeader), has(self.responseHeader), has(self.baggage), has(self.variable), has(self.value)].exists_one(is, is)";

    // Something must be said.
    SOME_SAMPLING: "says nothing: write parent, head or keep, or leave it out",
        "has(self.parent) || has(self.head) || has(self.keep)";
    SOME_HEAD: "says nothing: write rules or boost, or leave it out",
        "has(self.rules) || has(self.boost)";
    SOME_MATCH: "an empty match asks for nothing: leave it out for all requests",
        "has(self.method) || has(self.path) || has(self.host) || has(self.route) || has(self.headers) || has(self.grpc) || has(self.source) || has(self.destination) || has(self.baggage)";
    SOME_GRPC: "write service, method or both",
        "has(self.service) || has(self.method)";
    SOME_PARTY: "write service, namespace or both",
        "has(self.service) || has(self.__namespace__)";
    SOME_POLICY: "says nothing: write defaults, or overrides for a namespace",
        "has(self.defaults) || has(self.overrides)";
    SOME_SPAN: "says nothing: write attributes, redaction, propagation or destinations",
        "has(self.attributes) || has(self.redaction) || has(self.propagation) || has(self.destinations)";
    SOME_BUDGET: "says nothing: write spansPerSecond or services, or leave it out",
        "has(self.spansPerSecond) || has(self.services)";
    SOME_ONLY: "says nothing: write namespaces or services, or leave it out",
        "has(self.namespaces) || has(self.services)";
    NAMED_ATTRIBUTE: "write a name: only the attribute of a header is called after it",
        "has(self.name) || has(self.requestHeader) || has(self.responseHeader)";

    // What goes together.
    LAST_RULE: "only the last rule may be without match: those behind it are never asked; move it to the end",
        "self.filter(rule, !has(rule.match)).size() <= (has(self[self.size() - 1].match) ? 0 : 1)";
    GROUP: "the group does not go with the kind: it is \"\" for Namespace, Service and ServiceAccount, apps for Deployment and StatefulSet, gateway.networking.k8s.io for Gateway, HTTPRoute and GRPCRoute",
        "self.group == (self.kind in ['Deployment', 'StatefulSet'] ? 'apps' : self.kind in ['Gateway', 'HTTPRoute', 'GRPCRoute'] ? 'gateway.networking.k8s.io' : '')";
    SECTION: "sectionName is for a Gateway's listener or a route's rule: leave it out",
        "self.sectionName == '' || self.kind in ['Gateway', 'HTTPRoute', 'GRPCRoute']";
    ALONE: "a policy for the namespace has no other target: write a second policy",
        "self.size() == 1 || !self.exists(target, target.kind == 'Namespace')";
    OVERRIDES: "overrides are for a policy whose target is the Namespace: write defaults",
        "!has(self.overrides) || self.targetRefs.exists(target, target.kind == 'Namespace')";
    DEFAULT_NAME: "only the MeshTracing that is named default counts: name it default",
        "self.metadata.name == 'default'";
    IMMUTABLE: "a capture cannot be changed: delete it or create another",
        "self == oldSelf";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_an_example_that_breaks_it() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/invalid");
        let texts: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| std::fs::read_to_string(entry.expect("it can be read").path()).expect("it can be read"))
            .collect();
        for rule in ALL.iter().filter(|rule| rule.says != IMMUTABLE.says) {
            let line = format!("# says: {}\n", rule.says);
            assert!(texts.iter().any(|text| text.contains(&line)), "none for: {}", rule.says);
        }
    }
}
