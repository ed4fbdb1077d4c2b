//! Which rule decides, and that what is pushed and counted comes through. The vectors are OpenTelemetry's.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use spanmesh_proto::TraceId;

use super::*;
use crate::config::{Adaptive, BaggageMatch, HeaderMatch, Match, Mode, Party, PathKind, PathMatch, RateLimit};

fn id(rule: &str) -> Id {
    Id::new("shop/cart", rule, 7)
}

fn rule(name: &str, match_: Match, action: Action) -> Rule {
    Rule { id: id(name), match_, action }
}

fn part(probability: f64) -> Action {
    Action::Threshold(Threshold::of(probability).unwrap())
}

fn chain(rules: Vec<Rule>) -> Chain {
    Chain { rules, ..Chain::default() }
}

fn engine(own: Chain) -> Engine {
    Engine::new(&Plan { own, guard: None, ..Plan::default() })
}

fn path(kind: PathKind, value: &str) -> Match {
    Match { path: Some(PathMatch { kind, value: value.into() }), ..Match::default() }
}

fn get(path: &str) -> Request<'_> {
    Request { method: Some(&GET), path, ..Request::NOTHING }
}

fn decides<'a>(engine: &'a Engine, request: &Request<'_>, headers: &HeaderMap, believed: bool) -> Option<&'a str> {
    let choice = engine.head(request, headers, believed, engine.chain(request))?;
    engine.id(choice.seat).map(|id| &*id.rule)
}

#[test]
fn the_first_rule_that_matches_decides() {
    let header = |name: &str, value: Option<&str>| Match {
        headers: vec![HeaderMatch { name: name.into(), value: value.map(Into::into) }],
        ..Match::default()
    };
    let grpc = |service: Option<&str>, method: Option<&str>| Match {
        grpc: Some(crate::config::GrpcMatch { service: service.map(Into::into), method: method.map(Into::into) }),
        ..Match::default()
    };
    let party = |service: &str| Some(Party { service: Some(service.into()), namespace: None });
    let member = BaggageMatch { name: "tier".into(), value: Some("gold".into()) };
    let engine = engine(chain(vec![
        rule("exact", path(PathKind::Exact, "/healthz"), Action::Never),
        rule("prefix", path(PathKind::Prefix, "/cart"), Action::Always),
        rule("template", path(PathKind::Template, "/users/{id}/items"), Action::Always),
        rule("any first", path(PathKind::Template, "/{tenant}/orders"), Action::Always),
        rule("mesh", header("spanmesh-from", None), Action::Always),
        rule("gold", header("x-tier", Some("gold")), Action::Always),
        rule("there", header("x-debug", None), Action::Always),
        rule("get item", grpc(Some("shop.Cart"), Some("Get")), Action::Always),
        rule("any call", grpc(None, None), Action::Always),
        rule("host", Match { host: Some("*.shop.example".into()), ..Match::default() }, Action::Always),
        rule("route", Match { route: Some("pay".into()), ..Match::default() }, Action::Always),
        rule("source", Match { source: party("web"), ..Match::default() }, Action::Always),
        rule("to", Match { destination: party("Pay"), ..Match::default() }, Action::Always),
        rule("baggage", Match { baggage: vec![member], ..Match::default() }, Action::Always),
        rule("post", Match { method: Some("POST".into()), ..Match::default() }, Action::Always),
    ]));
    let none = HeaderMap::new();
    let service = |name| Some(Service { name, namespace: "shop" });
    for (request, expected) in [
        (get("/healthz"), Some("exact")),
        (get("/healthz/x"), None),
        (get("/cart/7"), Some("prefix")),
        (get("/cartoon"), None),
        (get("/users/7/items"), Some("template")),
        (get("/acme/orders"), Some("any first")),
        (Request { grpc: true, ..get("/shop.Cart/Get") }, Some("get item")),
        (Request { grpc: true, ..get("/shop.Cart/Put") }, Some("any call")),
        (get("/shop.Cart/Get"), None),
        (Request { host: "a.shop.example:80", ..get("/") }, Some("host")),
        (Request { host: "shop.example", ..get("/") }, None),
        (Request { route: Some("pay"), ..get("/") }, Some("route")),
        (Request { source: service("web"), ..get("/") }, Some("source")),
        (Request { destination: service("pay"), ..get("/") }, Some("to")),
        (Request { method: Some(&POST), ..get("/") }, Some("post")),
        (Request::NOTHING, None),
    ] {
        assert_eq!(decides(&engine, &request, &none, true), expected, "{request:?}");
    }
    for (name, value, believed, expected) in [
        ("x-tier", "gold", false, Some("gold")),
        ("x-tier", "lead", true, None),
        ("x-debug", "", true, Some("there")),
        ("spanmesh-from", "x", true, Some("mesh")),
        ("spanmesh-from", "x", false, None),
        ("baggage", "a=1, tier = gold;p=1", true, Some("baggage")),
        ("baggage", "tier=golden", true, None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        assert_eq!(decides(&engine, &get("/"), &headers, believed), expected, "{name}: {value}");
    }
}

#[test]
fn a_callers_rules_for_a_destination_come_before_the_destinations_and_those_before_its_others() {
    let to = |service: &str| Match {
        destination: Some(Party { service: Some(service.into()), namespace: Some("shop".into()) }),
        ..Match::default()
    };
    let mut plan = Plan {
        own: chain(vec![rule("rest", Match::default(), Action::Never), rule("own", to("cart"), Action::Always)]),
        ..Plan::default()
    };
    for name in ["cart.shop", "pay.shop"] {
        plan.destinations.insert(name.into(), chain(vec![rule(name, path(PathKind::Prefix, "/x"), Action::Always)]));
    }
    let engine = Engine::new(&plan);
    let at = |side, name, path| {
        let destination = Some(Service { name, namespace: "Shop" });
        let request = Request { side, destination, ..get(path) };
        decides(&engine, &request, &HeaderMap::new(), true)
    };
    for side in [Mode::Outbound, Mode::Gateway] {
        assert_eq!(at(side, "cart", "/x"), Some("own"));
        assert_eq!(at(side, "PAY", "/x"), Some("pay.shop"));
        assert_eq!(at(side, "pay", "/y"), Some("rest"));
        assert_eq!(at(side, "web", "/x"), Some("rest"));
    }
    assert_eq!(at(Mode::Inbound, "pay", "/x"), Some("rest"));
}

#[test]
fn hosts_are_services_as_kubernetes_names_them() {
    for (host, expected) in [
        ("cart.shop.svc.cluster.local:80", Some(("cart", "shop"))),
        ("cart.shop.svc.", Some(("cart", "shop"))),
        ("cart.shop", Some(("cart", "shop"))),
        ("cart", Some(("cart", "mine"))),
        ("cart.shop.example", None),
        ("a.b.svc.cluster.local.x", None),
        ("10.0.0.1:80", None),
        ("[::1]", None),
        ("", None),
        ("cart.", Some(("cart", "mine"))),
    ] {
        let service = Service::of_host(host, "mine").map(|service| (service.name, service.namespace));
        assert_eq!(service, expected, "{host}");
    }
    assert_eq!(Service::of_host("cart", ""), None);
}

#[test]
fn a_hundred_rules_decide_as_one_after_the_other_would() {
    let rules: Vec<Rule> = (0..100)
        .map(|number| {
            let mut match_ = match number % 6 {
                4 => path(PathKind::Exact, &format!("/s{}/{number}", number % 7)),
                5 => path(PathKind::Template, &format!("/s{}/{{id}}/{number}", number % 7)),
                _ => path(PathKind::Prefix, &format!("/s{}/{number}", number % 7)),
            };
            match_.method = (number % 3 == 0).then(|| "POST".into());
            match_.host = (number % 5 == 0).then(|| "a.example".into());
            let party =
                |service: Option<&str>| Party { service: service.map(Into::into), namespace: Some("shop".into()) };
            match_.source = (number % 4 == 1).then(|| party(Some("Web").filter(|_| number % 8 == 1)));
            match_.destination = (number % 11 == 2).then(|| party(Some("cart")));
            let member = |name: &str| BaggageMatch { name: name.into(), value: Some("gold".into()) };
            match_.baggage = if number % 9 == 2 { vec![member("tier"), member("rank")] } else { Vec::new() };
            let header = HeaderMatch { name: "x-tier".into(), value: Some("Gold".into()) };
            match_.headers = if number % 10 == 3 { vec![header] } else { Vec::new() };
            rule(&number.to_string(), match_, Action::Always)
        })
        .collect();
    let tests: Vec<_> = rules.iter().map(|rule| super::ask::Test::compile(&rule.match_).unwrap()).collect();
    let engine = engine(chain(rules));
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..5000 {
        let mut text = format!("/s{}/{}", rng.random_range(0..8), rng.random_range(0..110));
        if rng.random() {
            text = format!("{text}/{}", rng.random_range(0..110));
        }
        let method = if rng.random() { &GET } else { &POST };
        let host = if rng.random() { "a.example" } else { "b.example" };
        let mut service = |name| rng.random::<bool>().then_some(Service { name, namespace: "shop" });
        let (source, destination) = (service("web"), service("Cart"));
        let request = Request { method: Some(method), host, source, destination, ..get(&text) };
        let mut headers = HeaderMap::new();
        let lines =
            [("baggage", "rank=gold"), ("baggage", "a=1, tier=gold;p=1"), ("x-tier", "gold"), ("x-tier", "Gold")];
        for (name, value) in lines.into_iter().filter(|_| rng.random()) {
            headers.append(name, HeaderValue::from_static(value));
        }
        let plain = tests.iter().position(|test| test.holds(&request, &headers, true));
        let found = decides(&engine, &request, &headers, true);
        assert_eq!(found.map(str::to_owned), plain.map(|place| place.to_string()), "{text}");
    }
}

#[test]
fn what_cannot_be_used_is_left_out_by_name_and_the_rest_holds() {
    let mut lasting = Lasting::default();
    let own = chain(vec![
        rule("bad", path(PathKind::Prefix, "no slash"), Action::Always),
        rule("good", Match::default(), Action::Always),
    ]);
    let (engine, refused) = Engine::compile(&Plan { own, ..Plan::default() }, &mut lasting, None);
    assert_eq!(refused.iter().map(|refused| &*refused.rule).collect::<Vec<_>>(), ["bad"]);
    assert!(refused[0].reason.contains("pathPrefix"), "{}", refused[0].reason);
    assert_eq!(decides(&engine, &get("/"), &HeaderMap::new(), true), Some("good"));
}

#[test]
fn a_capture_takes_one_trace_for_each_permit_until_its_end() {
    let (takes, mut taken) = tokio::sync::mpsc::channel(4);
    let capture = Capture {
        name: "shop/one".into(),
        generation: 2,
        match_: path(PathKind::Prefix, "/cart"),
        until: 100,
        sides: vec![Mode::Outbound],
    };
    let plan = Plan { captures: vec![capture], ..Plan::default() };
    let mut lasting = Lasting::default();
    let (engine, _) = Engine::compile(&plan, &mut lasting, Some(takes.clone()));
    let trace = TraceId::parse(b"0af7651916cd43dd8048eb211c80319c").unwrap();
    let take = |engine: &Engine, request: Request<'_>| engine.capture(&request, &HeaderMap::new(), true, trace);
    assert_eq!(take(&engine, get("/cart")), None, "it has no permit yet");
    lasting.permits.values().for_each(|permits| permits.store(1, std::sync::atomic::Ordering::Relaxed));
    assert_eq!(take(&engine, get("/other")), None);
    assert_eq!(take(&engine, Request { side: Mode::Inbound, ..get("/cart") }), None);
    assert_eq!(take(&engine, Request { now: 100, ..get("/cart") }), None);
    let seat = take(&engine, get("/cart")).unwrap();
    assert_eq!(&*engine.id(seat).unwrap().policy, "capture:shop/one");
    assert_eq!(taken.try_recv().unwrap().trace, trace);
    assert_eq!(take(&engine, get("/cart")), None, "no permit is left");
    // Another plan with the same capture does not begin it again.
    let (engine, _) = Engine::compile(&plan, &mut lasting, Some(takes));
    assert_eq!(take(&engine, get("/cart")), None);
    lasting.permits.values().for_each(|permits| permits.store(1, std::sync::atomic::Ordering::Relaxed));
    assert!(take(&engine, get("/cart")).is_some());
}

/// Runs requests past an engine that a steward follows, a tenth of a second at a time; gives what was kept of each look.
fn run(plan: &Plan, pushed: Vec<Pushed>, looks: &[&[(&str, u32)]]) -> (Vec<Vec<u32>>, Steward) {
    let mut rng = SmallRng::seed_from_u64(11);
    let engine = Arc::new(Engine::new(plan));
    let tally = engine.tally();
    let mut steward = Steward::default();
    steward.push(pushed);
    steward.follow(engine.clone());
    steward.look(LOOK);
    let mut all = Vec::new();
    for look in looks {
        let mut kept = Vec::new();
        for (template, count) in *look {
            let mut passed = 0;
            for _ in 0..*count {
                let request = Request { template: Some(template), ..get("/x") };
                let choice = engine.head(&request, &HeaderMap::new(), true, None);
                let (seat, ruled) =
                    choice.map_or((Seat::UNRULED, Some(Threshold::ALL)), |one| (one.seat, one.threshold));
                let threshold = ruled.map(|threshold| threshold.max(engine.guarded()));
                let is_kept = threshold.is_some_and(|threshold| threshold.keeps(rng.random::<u64>() >> 8));
                tally.count(seat, is_kept);
                if is_kept {
                    tally.spans(1);
                    passed += 1;
                }
            }
            kept.push(passed);
        }
        all.push(kept);
        steward.look(LOOK);
    }
    (all, steward)
}

#[test]
fn an_adaptive_rule_meets_its_budget_and_a_rare_operation_is_not_starved() {
    let adaptive = Adaptive { spans_per_second: 100.0, min_traces_per_minute: 1.0, min_probability: 0.00001 };
    let own = chain(vec![rule("rest", Match::default(), Action::Adaptive(adaptive))]);
    let plan = Plan { own, guard: None, ..Plan::default() };
    let calm: &[(&str, u32)] = &[("/busy", 100), ("/rare", 1)];
    let storm: &[(&str, u32)] = &[("/busy", 1000), ("/rare", 1)];
    let looks: Vec<&[(&str, u32)]> = [vec![calm; 200], vec![storm; 200], vec![calm; 200]].concat();
    let (kept, mut steward) = run(&plan, Vec::new(), &looks);
    let rare: u32 = kept.iter().map(|look| look[1]).sum();
    assert_eq!(rare, 600, "of a rare operation all are kept");
    let all: Vec<u32> = kept.iter().map(|look| look.iter().sum()).collect();
    for (begins, ends) in [(0, 200), (200, 400), (400, 600)] {
        // From the second after a step on, until the next.
        let calmed = &all[begins + 10..ends];
        let mean = per_second(&calmed[10..]);
        assert!((mean / 100.0 - 1.0).abs() <= 0.05, "{mean} in a second");
        // Chance alone is 13 per cent in five seconds.
        let windows: Vec<f64> = calmed[10..].windows(50).map(per_second).collect();
        assert!(windows.iter().all(|mean| (mean / 100.0 - 1.0).abs() <= 0.2), "{windows:?}");
        let highest = calmed.windows(10).map(per_second).fold(0.0, f64::max);
        assert!(highest <= 200.0, "{highest} in a second");
    }
    let counts = steward.counts();
    let busy = counts.rules.iter().find(|count| count.operation == "GET /busy").unwrap();
    assert_eq!((busy.seen, &*busy.id.rule, busy.id.generation), (240_000, "rest", 7));
    assert_eq!(steward.counts().rules, [], "what was told is not told again");
}

#[test]
fn what_is_pushed_holds_and_a_rate_of_one_proxy_is_its_own() {
    let limit = |per_proxy| Action::RateLimit(RateLimit { traces_per_second: 50.0, burst: 1, per_proxy });
    // Three standard deviations of a share; of a rate, what a burst and what was saved come to.
    for (per_proxy, expected, allowed) in [(false, 1000.0, 95.0), (true, 5000.0, 30.0)] {
        let own = chain(vec![rule("limit", Match::default(), limit(per_proxy))]);
        let pushed = Pushed {
            policy: "shop/cart".into(),
            rule: "limit".into(),
            operation: String::new(),
            threshold: Threshold::of(0.01).unwrap(),
        };
        let look: &[(&str, u32)] = &[("/", 100)];
        let (kept, _) = run(&Plan { own, guard: None, ..Plan::default() }, vec![pushed], &[look; 1030]);
        // What came before the load was known is paid back.
        let whole = f64::from(kept[30..].iter().flatten().sum::<u32>());
        assert!((whole - expected).abs() <= allowed, "{whole} in a hundred seconds, {per_proxy}");
    }
}

#[test]
fn a_plan_in_place_of_another_keeps_no_more_than_a_budget_from_its_first_request_on() {
    let limit = Action::RateLimit(RateLimit { traces_per_second: 10.0, burst: 1, per_proxy: true });
    let adaptive = Adaptive { spans_per_second: 20.0, min_traces_per_minute: 1.0, min_probability: 0.00001 };
    let plan = |generation| {
        let written = |name: &str, path_: &str, action| Rule {
            id: Id::new("shop/cart", name, generation),
            match_: path(PathKind::Prefix, path_),
            action,
        };
        let rules = vec![written("limit", "/limit", limit), written("rest", "/", Action::Adaptive(adaptive))];
        Plan { own: chain(rules), guard: Some(50.0), ..Plan::default() }
    };
    let mut rng = SmallRng::seed_from_u64(19);
    let mut steward = Steward::default();
    let mut pass = |engine: &Engine, tally: &Tally, count: u32| {
        let mut kept = [0; 3];
        for number in 0..count {
            let place = number as usize % 3;
            let text = ["/limit", "/busy", "/other"][place];
            let request = Request { template: Some(text), ..get(text) };
            let choice = engine.head(&request, &HeaderMap::new(), true, None).unwrap();
            let threshold = choice.threshold.unwrap().max(engine.guarded());
            let is_kept = threshold.keeps(rng.random::<u64>() >> 8);
            tally.count(choice.seat, is_kept);
            tally.spans(is_kept.into());
            kept[place] += u32::from(is_kept);
        }
        kept
    };
    // Pushed again as it is, and written anew.
    for generation in [1, 1, 1, 2, 2, 3] {
        let engine = Arc::new(Engine::new(&plan(generation)));
        steward.follow(engine.clone());
        let tally = engine.tally();
        let first = pass(&engine, &tally, 300);
        if generation > 1 || steward.totals().spans > 0 {
            assert!(first.iter().all(|kept| *kept <= 10), "{first:?} of a hundred each in a tenth of a second");
        }
        steward.look(LOOK);
        for _ in 0..50 {
            pass(&engine, &tally, 300);
            steward.look(LOOK);
        }
    }
}

fn per_second(looks: &[u32]) -> f64 {
    f64::from(looks.iter().sum::<u32>()) / (looks.len() as f64 * LOOK.as_secs_f64())
}

#[test]
fn the_guard_lets_a_short_burst_pass_and_bounds_the_rest() {
    let plan = Plan { guard: Some(100.0), ..Plan::default() };
    let look: &[(&str, u32)] = &[("/", 100)];
    let (kept, steward) = run(&plan, Vec::new(), &[look; 430]);
    let kept: Vec<u32> = kept.into_iter().flatten().collect();
    // Two seconds' budget may have been saved, and what came is known a second later.
    let mean = per_second(&kept[30..]);
    assert!((mean / 100.0 - 1.0).abs() <= 0.05, "{mean} in a second");
    let seconds: Vec<f64> = kept[30..].windows(10).map(per_second).collect();
    // Chance alone is 30 in a second, and there are some hundred of them.
    assert!(seconds.iter().all(|mean| (60.0..=140.0).contains(mean)), "{seconds:?}");
    // Two seconds' budget, that of the first second, and what came in the look before it was known; and chance.
    assert!(kept[..10].iter().sum::<u32>() <= 200 + 100 + 100 + 30, "{:?}", &kept[..10]);
    assert!(steward.totals().guard > 0);
    let calm: &[(&str, u32)] = &[("/", 5)];
    let (kept, steward) = run(&plan, Vec::new(), &[calm; 100]);
    assert!(kept.iter().flatten().all(|kept| *kept == 5));
    assert_eq!(steward.totals().guard, 0);
    let off = Plan { guard: None, ..Plan::default() };
    assert!(run(&off, Vec::new(), &[look; 100]).0.iter().flatten().all(|kept| *kept == 100));
}

#[test]
fn what_a_higher_share_keeps_holds_what_a_lower_one_keeps_and_counts_are_right() {
    let mut rng = SmallRng::seed_from_u64(2);
    let shares = [0.001, 0.01, 0.05, 0.3, 0.5, 1.0];
    let (mut kept, mut weighed) = ([0u32; 6], [0.0f64; 6]);
    const REQUESTS: u32 = 1_000_000;
    for _ in 0..REQUESTS {
        let randomness = rng.random::<u64>() >> 8;
        let mut before = false;
        for ((share, kept), weighed) in shares.iter().zip(&mut kept).zip(&mut weighed) {
            let threshold = Threshold::of(*share).unwrap();
            let now = threshold.keeps(randomness);
            assert!(now || !before, "what {share} drops a lower share does not keep");
            before = now;
            if now {
                *kept += 1;
                *weighed += threshold.adjusted_count();
            }
        }
    }
    for ((share, kept), weighed) in shares.iter().zip(kept).zip(weighed) {
        let (all, expected) = (f64::from(REQUESTS), f64::from(REQUESTS) * share);
        let sigma = (expected * (1.0 - share)).sqrt();
        assert!((f64::from(kept) - expected).abs() <= 3.0 * sigma, "{kept} at {share}");
        assert!((weighed / all - 1.0).abs() <= (3.0 * sigma / expected).max(0.01), "{weighed} at {share}");
    }
    let half = |seed| engine(chain(vec![rule(seed, Match::default(), part(0.5))]));
    let (one, other) = (half("one"), half("other"));
    let threshold = |engine: &Engine| engine.head(&get("/"), &HeaderMap::new(), true, None).unwrap().threshold;
    assert_eq!(threshold(&one), threshold(&other), "two proxies agree");
}

#[test]
fn thresholds_as_opentelemetry_tables_them() {
    for (one_in, digits) in [
        (1, ["0", "0", "0"]),
        (2, ["8", "8", "8"]),
        (3, ["aab", "aaab", "aaaab"]),
        (4, ["c", "c", "c"]),
        (5, ["ccd", "cccd", "ccccd"]),
        (8, ["e", "e", "e"]),
        (10, ["e66", "e666", "e6666"]),
        (16, ["f", "f", "f"]),
        (100, ["fd71", "fd70a", "fd70a4"]),
        (1000, ["ffbe7", "ffbe77", "ffbe76d"]),
        (10_000, ["fff972", "fff9724", "fff97247"]),
        (100_000, ["ffff584", "ffff583a", "ffff583a5"]),
        (1_000_000, ["ffffef4", "ffffef39", "ffffef391"]),
    ] {
        for (precision, expected) in (3..).zip(digits) {
            let threshold = Threshold::within(1.0 / f64::from(one_in), precision).unwrap();
            assert_eq!(threshold.digits(), expected, "1 in {one_in}");
            assert_eq!(Threshold::parse(expected), Some(threshold));
        }
    }
    for (probability, digits) in [
        (0.75, "4"),
        (0.6, "6666"),
        (0.4, "999a"),
        (0.3, "b333"),
        (0.2, "cccd"),
        (0.15, "d99a"),
        (0.05, "f3333"),
        (0.02, "fae14"),
        (0.005, "feb85"),
        (0.0005, "ffdf3b"),
        (1.0 / 256.0, "ff"),
        (2f64.powi(-16), "ffff"),
        (2.0 / 3.0, "5555"),
        (2f64.powi(-56), "ffffffffffffff"),
    ] {
        assert_eq!(Threshold::of(probability).unwrap().digits(), digits, "{probability}");
    }
    for (digits, count) in [
        ("0", 1.0),
        ("8", 2.0),
        ("aaab", 3.00004577706569),
        ("c", 4.0),
        ("cccd", 5.0000762951094835),
        ("e666", 9.99938968568813),
        ("fd70a", 99.99771123402633),
        ("ffbe77", 1000.012874769029),
        ("fff9724", 9999.830725674266),
        ("ffff583a", 99999.238556461),
        ("ffffef39", 999992.38556461),
    ] {
        let adjusted = Threshold::parse(digits).unwrap().adjusted_count();
        assert!((adjusted / count - 1.0).abs() < 1e-12, "{digits}: {adjusted}");
    }
    for none in [0.0, -1.0, 1.1, f64::NAN, 2f64.powi(-57)] {
        assert_eq!(Threshold::of(none), None);
    }
    for bad in ["", "0AD", "x", "$", "-1", "14.5", "100000000000000", "ffffffffffffffff"] {
        assert_eq!(Threshold::parse(bad), None, "{bad}");
    }
    // Values to be rounded that are exact in 28, 40 and 32 bits.
    for (bits, value, chain) in [
        (28, 0x456_789au64, &["456789a", "45678a", "45679", "4568", "456", "45", "4"][..]),
        (
            40,
            0x07_89ab_cdef,
            &["0789abcdef", "0789abcdf", "0789abce", "0789abd", "0789ac", "0789b", "078a", "079", "08"],
        ),
        (32, 0x1234_5678, &["12345678", "1234568", "123456", "12345", "1234", "123", "12", "1"]),
    ] {
        for expected in chain {
            let share = 1.0 - value as f64 / 2f64.powi(bits);
            let threshold = Threshold::within(share, expected.len()).unwrap();
            assert_eq!(threshold.digits(), expected.trim_end_matches('0'), "{value:x}");
        }
    }
    let half = Threshold::of(0.5).unwrap();
    for (tail, kept) in
        [("00000000000000", false), ("7fffffffffffff", false), ("80000000000000", true), ("ffffffffffffff", true)]
    {
        assert_eq!(half.keeps(threshold::lower_hex(tail).unwrap()), kept, "{tail}");
    }
    for (digits, randomness, kept) in [
        ("c", "d29d6a7215ced0", true),
        ("c", "9e0e4736000000", false),
        ("8", "48eb211c80319c", false),
        ("7f99aa40c02744", "7f99aa40c02744", true),
    ] {
        let randomness = threshold::lower_hex(randomness).unwrap();
        assert_eq!(Threshold::parse(digits).unwrap().keeps(randomness), kept, "{digits} {randomness:x}");
    }
}

static GET: Method = Method::GET;
static POST: Method = Method::POST;
const LOOK: Duration = Duration::from_millis(100);
