//! Each message of the protocols, every field set to something that a proxy takes.

use prost::Message;
use spanmesh_proto::v1::{self, *};

pub enum Sent {
    Up(FromProxy),
    Down(ToProxy),
}

impl Sent {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Up(_) => "FromProxy",
            Self::Down(_) => "ToProxy",
        }
    }
}

/// What resources carry.
pub struct Bodies {
    pub policy: Policy,
    pub chain: Chain,
    pub thresholds: Thresholds,
    pub capture: Capture,
}

pub fn messages() -> Vec<(&'static str, Sent)> {
    use from_proxy::Message as From;
    use to_proxy::Message as To;
    let up = |message| Sent::Up(FromProxy { message: Some(message) });
    let down = |message| Sent::Down(ToProxy { message: Some(message) });
    let refusal = Refusal { kind: "policy".into(), name: "own".into(), reason: "attributes[0].name: is empty".into() };
    vec![
        ("hello", up(From::Hello(hello()))),
        ("ack", up(From::Ack(Ack { nonce: 7, version: 41 }))),
        ("nack", up(From::Nack(Nack { nonce: 8, version: 42, refusals: vec![refusal] }))),
        ("report", up(From::Report(report()))),
        ("interest", up(From::Interest(Interest { services: vec!["pay.shop".into(), "mail.shop".into()] }))),
        ("captured", up(From::Captured(Captured { capture: "shop/next".into(), trace: (1..=16).collect() }))),
        ("snapshot", down(To::Push(snapshot()))),
        ("delta", down(To::Push(delta()))),
        ("thresholds", down(To::Push(one(9, "thresholds", "mesh", bodies().thresholds.encode_to_vec())))),
        ("captures", down(To::Push(one(10, "capture", "shop/next", bodies().capture.encode_to_vec())))),
        ("permit", down(To::Permit(Permit { capture: "shop/next".into() }))),
        ("leave", down(To::Leave(Leave { reason: "is shutting down".into(), after: 1_500 }))),
    ]
}

pub fn bodies() -> Bodies {
    let thresholds = vec![threshold("limit", "", 0xff << 48), threshold("rest", "GET /items/{id}", 0xfd70a << 36)];
    let limit = Limit { policy: "shop/cart".into(), rule: "limit".into(), traces_per_second: 12.5, proxies: 3 };
    Bodies {
        policy: policy(),
        chain: Chain {
            parent: Parent::Ignore.into(),
            rules: vec![rule("all", Match::default(), v1::rule::Action::Always(Empty {}))],
            boosts: vec![rule("debug", Match::default(), v1::rule::Action::Threshold(1 << 55))],
            keeps: vec![Keep { name: "retried".into(), retries: 1, ..keep() }],
        },
        thresholds: Thresholds { thresholds, limits: vec![limit] },
        capture: Capture {
            r#match: Some(r#match()),
            until: 1_900_000_000_000,
            generation: 3,
            sides: vec!["inbound".into(), "outbound".into(), "gateway".into()],
        },
    }
}

fn hello() -> Hello {
    Hello {
        version: "0.1.0".into(),
        node: Some(Node {
            service: "cart".into(),
            namespace: "shop".into(),
            pod: "cart-5d4f-x2".into(),
            service_account: "cart".into(),
            cluster: "east".into(),
            workload: "cart".into(),
            role: "sidecar".into(),
        }),
        kinds: ["policy", "destination", "thresholds", "capture"].map(Into::into).into(),
        held: vec![held("policy", "own", 0x0123_4567_89ab_cdef)],
        services: vec!["pay.shop".into()],
    }
}

fn report() -> Report {
    let count = RuleCount {
        policy: "shop/cart".into(),
        rule: "rest".into(),
        operation: "GET /items/{id}".into(),
        seen: 1_000,
        kept: 10,
        held: Some(0xfd70a << 36),
    };
    Report {
        version: 42,
        window: 2_000,
        rules: vec![count],
        arrived_kept: 300,
        arrived_dropped: 700,
        unruled: 5,
        spans: 320,
        guard: 1 << 55,
        unknown: vec!["mood/own: the kind is not known to this version".into()],
    }
}

fn snapshot() -> Push {
    let Bodies { policy, chain, thresholds, capture } = bodies();
    Push {
        nonce: 1,
        version: 41,
        whole: true,
        changed: vec![
            resource("policy", "own", policy.encode_to_vec()),
            resource("destination", "pay.shop", chain.encode_to_vec()),
            resource("thresholds", "mesh", thresholds.encode_to_vec()),
            resource("capture", "shop/next", capture.encode_to_vec()),
        ],
        removed: Vec::new(),
        held: vec![held("destination", "mail.shop", 0xfedc_ba98_7654_3210)],
    }
}

fn delta() -> Push {
    Push {
        removed: vec![Name { kind: "destination".into(), name: "mail.shop".into() }],
        ..one(2, "destination", "pay.shop", bodies().chain.encode_to_vec())
    }
}

fn one(nonce: u64, kind: &str, name: &str, body: Vec<u8>) -> Push {
    Push { nonce, version: 42, changed: vec![resource(kind, name, body)], ..Push::default() }
}

fn resource(kind: &str, name: &str, body: Vec<u8>) -> Resource {
    Resource { kind: kind.into(), name: name.into(), digest: 0x1111_2222_3333_4444, body: body.into() }
}

fn held(kind: &str, name: &str, digest: u64) -> Held {
    Held { kind: kind.into(), name: name.into(), digest }
}

fn threshold(rule: &str, operation: &str, threshold: u64) -> Threshold {
    Threshold { policy: "shop/cart".into(), rule: rule.into(), operation: operation.into(), threshold }
}

fn policy() -> Policy {
    use v1::rule::Action;
    let limit = RateLimit { traces_per_second: 5.0, burst: 10, per_proxy: true };
    let adaptive = Adaptive { spans_per_second: 100.0, min_traces_per_minute: 1.0, min_probability: 0.00001 };
    let path = |path| Match { path: Some(PathMatch { path: Some(path) }), ..Match::default() };
    let sampling = Chain {
        parent: Parent::Respect.into(),
        rules: vec![
            rule("health", path(path_match::Path::Exact("/healthz".into())), Action::Never(Empty {})),
            rule("vip", r#match(), Action::Always(Empty {})),
            rule("users", path(path_match::Path::Template("/users/{id}".into())), Action::Threshold(0xf_3333 << 36)),
            rule("limit", path(path_match::Path::Prefix("/search".into())), Action::RateLimit(limit)),
            rule("rest", Match::default(), Action::Adaptive(adaptive)),
        ],
        boosts: Vec::new(),
        keeps: vec![keep()],
    };
    Policy {
        sampling: Some(sampling),
        propagation: Some(propagation()),
        redaction: Some(Redaction {
            query: vec!["token".into()],
            patterns: Some(Patterns { names: vec!["cards".into(), "emails".into()] }),
            hash_key_file: "/etc/spanmesh/hash-key".into(),
        }),
        attributes: attributes(),
        destinations: destinations(),
        untraced: Some(Untraced { kinds: vec!["probes".into()] }),
        edge: Some(Edge { trust: "Downgrade".into() }),
        guard: Some(Guard { spans_per_second: 250.0 }),
    }
}

fn rule(name: &str, r#match: Match, action: rule::Action) -> Rule {
    Rule { policy: "shop/cart".into(), generation: 7, name: name.into(), r#match: Some(r#match), action: Some(action) }
}

fn r#match() -> Match {
    let field = |name: &str, value: Option<&str>| Field { name: name.into(), value: value.map(Into::into) };
    let party = |service: &str| Some(Party { service: service.into(), namespace: "shop".into() });
    Match {
        method: "POST".into(),
        path: Some(PathMatch { path: Some(path_match::Path::Prefix("/shop.Cart".into())) }),
        host: "*.shop.example".into(),
        route: "pay".into(),
        headers: vec![field("x-tier", Some("gold")), field("x-debug", None)],
        grpc_service: "shop.Cart".into(),
        grpc_method: "Get".into(),
        source: party("web"),
        destination: party("cart"),
        baggage: vec![field("tier", Some("gold"))],
    }
}

fn keep() -> Keep {
    Keep {
        policy: "shop/cart".into(),
        generation: 7,
        name: "errors".into(),
        http_status: vec![StatusRange { first: 500, last: 599 }],
        errors: true,
        response_flags: vec!["upstream_reset".into()],
        latency: 500_000,
        retries: 1,
        threshold: 0xe666 << 40,
        traces_per_second: 10.0,
        burst: 100,
        grpc_errors: true,
    }
}

fn propagation() -> Propagation {
    let words = |words: &[&str]| words.iter().map(|word| (*word).into()).collect();
    Propagation {
        extract: words(&["w3c", "b3"]),
        inject: words(&["w3c"]),
        clear: words(&["jaeger"]),
        normalise: Some(true),
        baggage: Some(true),
        stranger_baggage: words(&["tier"]),
        outside_baggage: Some(true),
        mesh: words(&["10.0.0.0/8"]),
        infer_parent: Some(true),
        request_id: Some(true),
    }
}

fn attributes() -> Vec<Attribute> {
    use v1::attribute::From;
    let attribute = |name: &str, from| Attribute { name: name.into(), from: Some(from) };
    vec![
        attribute("app.tier", From::RequestHeader("x-tier".into())),
        attribute("app.cache", From::ResponseHeader("x-cache".into())),
        attribute("app.user", From::Baggage("user".into())),
        attribute("app.zone", From::Variable("ZONE".into())),
        attribute("app.team", From::Value("cart".into())),
    ]
}

fn destinations() -> Vec<Destination> {
    use v1::destination::To;
    use v1::header::From;
    let header = |name: &str, from| Header { name: name.into(), from: Some(from) };
    let tls = || Some(Tls { root_file: "/etc/spanmesh/root.pem".into(), server_name: "otel.example".into() });
    let to = |name: &str, to| Destination { name: name.into(), to: Some(to), ..Destination::default() };
    vec![
        Destination {
            namespaces: vec!["shop".into()],
            services: vec!["cart".into()],
            ..to(
                "grpc",
                To::OtlpGrpc(OtlpGrpc {
                    endpoint: "https://otel.example:4317".into(),
                    gzip: true,
                    headers: vec![header("x-team", From::Value("shop".into()))],
                    tls: tls(),
                }),
            )
        },
        to(
            "http",
            To::OtlpHttp(OtlpHttp {
                endpoint: "https://otel.example:4318".into(),
                gzip: true,
                json: true,
                headers: vec![header("x-key", From::Variable("KEY".into()))],
                tls: tls(),
            }),
        ),
        to(
            "zipkin",
            To::Zipkin(Zipkin {
                endpoint: "https://zipkin.example:9411".into(),
                gzip: true,
                headers: vec![header("x-key", From::File("/etc/spanmesh/key".into()))],
                tls: tls(),
            }),
        ),
        to("out", To::Stdout(Empty {})),
        to("file", To::File("/var/lib/spanmesh/spans.jsonl".into())),
    ]
}
