//! Budgets of the whole mesh: however many proxies there are and however suddenly the load grows, together they keep what was
//! allowed. In virtual time with the proxy's engine and the control plane's planner, and once with real ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::method::Method;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use spanmesh_control_plane::adaptive::{self, Budgets, Count, Kind, Planner, Report};
use spanmesh_proxy::config::{Adaptive, Match, RateLimit};
use spanmesh_proxy::rules::sampling::{
    Action, Chain, Engine, Id, Limit, Plan, Pushed, Request, Rule, Seat, Steward, Tally, Threshold,
};
use spanmesh_tests::control_plane::{NAMESPACE, put, sampling};
use spanmesh_tests::{Client, ControlPlane, Dir, Origin, Protocol, Proxy, run};

/// Traces of the whole mesh in a second.
const TRACES: f64 = 100.0;
const SPANS: u64 = 2;
const LOOK: Duration = Duration::from_millis(100);
const REPORTS: u64 = 20;

/// Proxies and their control plane, in virtual time.
struct Mesh {
    now: Duration,
    looks: u64,
    planner: Planner,
    proxies: Vec<Simulated>,
    rng: SmallRng,
    /// Traces that were kept in each look.
    kept: Vec<u64>,
}

struct Simulated {
    engine: Arc<Engine>,
    tally: Arc<Tally>,
    steward: Steward,
    held: Vec<Pushed>,
}

impl Mesh {
    fn new(proxies: usize, action: Action, kind: Kind) -> Self {
        let mut planner = Planner::new(Duration::ZERO, Duration::from_secs(10));
        let rule = adaptive::Rule { policy: "shop/all".into(), rule: "rest".into(), service: None, kind };
        planner.set(vec![rule], Budgets::default());
        let rule = Rule { id: Id::new("shop/all", "rest", 1), match_: Match::default(), action };
        let own = Chain { rules: vec![rule], ..Chain::default() };
        let plan = Plan { own, guard: None, ..Plan::default() };
        let simulated = || {
            let engine = Arc::new(Engine::new(&plan));
            let mut steward = Steward::default();
            steward.follow(engine.clone());
            Simulated { tally: engine.tally(), engine, steward, held: Vec::new() }
        };
        let proxies = (0..proxies).map(|_| simulated()).collect();
        Self { now: Duration::ZERO, looks: 0, planner, proxies, rng: SmallRng::seed_from_u64(5), kept: Vec::new() }
    }

    fn adaptive(proxies: usize) -> Self {
        let spans = TRACES * SPANS as f64;
        let action = Adaptive { spans_per_second: spans, min_traces_per_minute: 1.0, min_probability: 1e-5 };
        let kind = Kind::Adaptive { spans_per_second: spans, min_traces_per_minute: 1.0, min_probability: 1e-5 };
        Self::new(proxies, Action::Adaptive(action), kind)
    }

    /// So many requests in a second come to each proxy.
    fn run(&mut self, seconds: u64, rates: &[f64]) {
        for _ in 0..seconds * 10 {
            self.now += LOOK;
            self.looks += 1;
            let mut all = 0;
            for (proxy, rate) in self.proxies.iter_mut().zip(rates) {
                for (operation, share) in [("/busy", 0.9), ("/calm", 0.1)] {
                    all += proxy.ask(&mut self.rng, operation, rate * share * LOOK.as_secs_f64());
                }
                proxy.steward.look(LOOK);
            }
            self.kept.push(all);
            for (place, proxy) in self.proxies.iter_mut().enumerate() {
                if (self.looks + place as u64 * 7).is_multiple_of(REPORTS) {
                    proxy.report(self.now, place as u64, &mut self.planner);
                }
            }
            if self.planner.tick(self.now) {
                self.push();
            }
        }
    }

    fn push(&mut self) {
        let pushed = |one: &adaptive::Threshold| Pushed {
            policy: one.policy.to_string(),
            rule: one.rule.to_string(),
            operation: one.operation.to_string(),
            threshold: Threshold::new(one.threshold).expect("a threshold"),
        };
        let limit = |one: &adaptive::Limit| Limit {
            policy: one.policy.clone(),
            rule: one.rule.clone(),
            traces_per_second: one.traces_per_second,
            proxies: one.proxies,
        };
        let pushed: Vec<_> = self.planner.thresholds().expect("it has listened").iter().map(pushed).collect();
        for proxy in &mut self.proxies {
            proxy.held.clone_from(&pushed);
            proxy.steward.push(pushed.clone());
            proxy.steward.limit(self.planner.limits().iter().map(limit).collect());
        }
    }

    /// Kept in a second, of each stretch of so many looks, from one look on.
    fn rates(&self, from: usize, looks: usize) -> Vec<f64> {
        let rate = |kept: &[u64]| kept.iter().sum::<u64>() as f64 / (LOOK.as_secs_f64() * looks as f64);
        self.kept[from..].chunks_exact(looks).map(rate).collect()
    }
}

impl Simulated {
    fn ask(&mut self, rng: &mut SmallRng, operation: &str, mean: f64) -> u64 {
        // Near enough to how independent requests come.
        let tries = (mean * 4.0).ceil().max(1.0);
        let mut kept = 0;
        for _ in 0..tries as u64 {
            if !rng.random_bool(mean / tries) {
                continue;
            }
            let request = Request { method: Some(&Method::GET), template: Some(operation), ..Request::NOTHING };
            let choice = self.engine.head(&request, &HeaderMap::new(), true, None);
            let seat = choice.map_or(Seat::UNRULED, |choice| choice.seat);
            let threshold = choice.and_then(|choice| choice.threshold);
            let keeps = threshold.is_some_and(|threshold| threshold.keeps(rng.random::<u64>() >> 8));
            self.tally.count(seat, keeps);
            if keeps {
                self.tally.spans(SPANS);
                kept += 1;
            }
        }
        kept
    }

    fn report(&mut self, now: Duration, place: u64, planner: &mut Planner) {
        let counts = self.steward.counts();
        let held = |operation: &str| {
            let named = self.held.iter().find(|held| held.operation == operation);
            named
                .or_else(|| self.held.iter().find(|held| held.operation.is_empty()))
                .map(|held| held.threshold.number())
        };
        let told: Vec<Count<'_>> = counts
            .rules
            .iter()
            .map(|count| Count {
                policy: &count.id.policy,
                rule: &count.id.rule,
                operation: &count.operation,
                seen: count.seen,
                kept: count.kept,
                held: held(&count.operation),
            })
            .collect();
        let window = LOOK * REPORTS as u32;
        planner.report(now, place, &Report { window, counts: &told, spans: counts.spans, unruled: counts.unruled });
    }
}

/// How long it was above this without a break, at most.
fn longest_above(rates: &[f64], most: f64, each: Duration) -> Duration {
    let runs = rates.split(|rate| *rate <= most).map(|above| above.len() as u32);
    each * runs.max().unwrap_or(0)
}

#[test]
fn after_a_tenfold_step_the_mesh_is_back_at_its_budget_and_never_at_twice_of_it_for_a_second() {
    for proxies in [1, 2, 10] {
        let mut mesh = Mesh::adaptive(proxies);
        let each = 2.0 * TRACES / proxies as f64;
        mesh.run(63, &vec![each; proxies]);
        for rate in mesh.rates(300, 50) {
            assert!((rate / TRACES - 1.0).abs() < 0.25, "{proxies}: {rate} before the step");
        }
        let step = mesh.kept.len();
        mesh.run(60, &vec![10.0 * each; proxies]);
        let above = longest_above(&mesh.rates(step, 2), 2.0 * TRACES, 2 * LOOK);
        assert!(above <= Duration::from_secs(1), "{proxies}: {above:?} above twice the budget");
        for rate in mesh.rates(step + 200, 50) {
            assert!((rate / TRACES - 1.0).abs() < 0.2, "{proxies}: {rate}");
        }
    }
}

#[test]
fn proxies_with_unlike_loads_share_a_budget_as_one_has_it() {
    let alone = {
        let mut mesh = Mesh::adaptive(1);
        mesh.run(160, &[1000.0]);
        mesh.rates(600, 1000)[0]
    };
    let mut mesh = Mesh::adaptive(10);
    let rates: Vec<f64> = (0..10).map(|place| if place == 0 { 550.0 } else { 50.0 }).collect();
    mesh.run(160, &rates);
    let together = mesh.rates(600, 1000)[0];
    for rate in [alone, together] {
        assert!((rate / TRACES - 1.0).abs() < 0.15, "{alone} and {together}");
    }
    assert!((together / alone - 1.0).abs() < 0.1, "{alone} and {together}");
}

#[test]
fn a_rate_limit_of_the_whole_mesh_is_held_by_the_sum_of_two_proxies() {
    let limit = RateLimit { traces_per_second: 20.0, burst: 20, per_proxy: false };
    for rates in [[300.0, 300.0], [550.0, 50.0], [25.0, 2.0]] {
        let kind = Kind::RateLimit { traces_per_second: 20.0, burst: 20.0 };
        let mut mesh = Mesh::new(2, Action::RateLimit(limit), kind);
        mesh.run(260, &rates);
        let rate = mesh.rates(600, 2000)[0];
        assert!((17.0..=21.5).contains(&rate), "{rate} of 20, {rates:?}");
        // Ten times as much at once.
        let step = mesh.kept.len();
        mesh.run(40, &rates.map(|rate| 10.0 * rate));
        let above = longest_above(&mesh.rates(step, 5), 40.0, 5 * LOOK);
        assert!(above <= Duration::from_secs(1), "{above:?}, {rates:?}");
    }
}

/// The service's proxy, whose calls are traced where they begin.
fn gateway(control_plane: &str, origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        "node: {{service: edge, namespace: shop}}\nrole: gateway\n{control_plane}\
         listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app, answerTrace: serverTiming}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
        origin.address
    ))
}

/// Sends so many requests in a second until then; when each came back, and whether it was kept.
async fn call(proxy: std::net::SocketAddr, rate: f64, until: Instant) -> Vec<(Instant, bool)> {
    let mut client = Client::connect(Protocol::Http1, proxy).await;
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    // What a machine that stalls has missed does not come at once.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut all = Vec::new();
    while Instant::now() < until {
        ticks.tick().await;
        let answer = client.get("/").await;
        let timing = answer.headers["server-timing"].to_str().expect("text").trim_end_matches('"').to_owned();
        all.push((Instant::now(), timing.ends_with(['1', '3'])));
    }
    all
}

#[test]
fn two_real_proxies_hold_a_tenfold_step_within_a_second_and_are_back_within_twenty() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        // Eighty traces, each of a server's and a client's span.
        const TRACES: usize = 80;
        let rule = "{name: rest, action: {adaptive: {spansPerSecond: 160}}}";
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, rule));
        let control_plane = ControlPlane::paced(&policies, Duration::from_secs(3));
        let section = control_plane.section();
        let proxies = [gateway(&section, &origin), gateway(&section, &origin)];
        control_plane.in_step(2).await;
        let load = async |factor: f64, seconds: u64| {
            let until = Instant::now() + Duration::from_secs(seconds);
            let callers = proxies.iter().flat_map(|proxy| [proxy.address("in"); 4]);
            let tasks: Vec<_> =
                callers.map(|address| tokio::task::spawn_local(call(address, 10.0 * factor, until))).collect();
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await.expect("a caller"));
            }
            all
        };
        load(1.0, 12).await;
        let step = Instant::now();
        let after = load(10.0, 30).await;
        let offered = after.len() as f64 / 30.0;
        assert!(offered > 3.0 * TRACES as f64, "this machine carries {offered} requests a second only");
        let within = |from: u64, to: u64| {
            let (from, to) = (step + Duration::from_millis(from), step + Duration::from_millis(to));
            after.iter().filter(|(at, kept)| *kept && (from..to).contains(at)).count()
        };
        let seconds: Vec<_> = (0..30).map(|second| within(second * 1000, second * 1000 + 1000)).collect();
        for from in (1000..29_000).step_by(100) {
            let kept = within(from, from + 1000);
            assert!(kept <= 2 * TRACES, "{kept} in the second from {from} ms on: {seconds:?}");
        }
        let settled = within(20_000, 30_000) as f64 / 10.0;
        assert!((settled / TRACES as f64 - 1.0).abs() < 0.2, "{settled} in a second: {seconds:?}");
    });
}
