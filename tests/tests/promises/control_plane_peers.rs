//! The stream between proxy and control plane with a peer that does not do what it should, or is of another version: each is
//! told why it is not served, none takes what others need, and what is not known is left aside and reported.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use spanmesh_proto::v1;
use spanmesh_proto::v1::from_proxy::Message as From;
use spanmesh_proto::v1::to_proxy::Message as To;
use spanmesh_tests::certificates::connect;
use spanmesh_tests::control_plane::{NAMESPACE, put, sampling};
use spanmesh_tests::peers::{Follower, Pulpit, hello};
use spanmesh_tests::{Authority, Client, ControlPlane, Dir, Origin, Process, Protocol, eventually, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
const ALWAYS: &str = "{name: all, action: {always: {}}}";
const NEVER: &str = "{name: none, action: {never: {}}}";
const ADAPTS: &str = "{name: rest, action: {adaptive: {spansPerSecond: 100}}}";

/// A gateway in a process of its own, so that what it says can be read.
async fn gateway(dir: &Dir, control_plane: &str, origin: &Origin) -> Process {
    let yaml = format!(
        "node: {{service: cart, namespace: shop}}\nrole: gateway\ncontrolPlane: {{{control_plane}, state: DIR/state}}\n\
         listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app, answerTrace: serverTiming}}\n\
         upstreams:\n- {{name: app, service: pay.shop, addresses: ['{}'], protocol: http1}}\n",
        origin.address
    );
    Process::start(PROGRAM, dir.as_ref(), &yaml).await
}

async fn keeps(proxy: &Process) -> bool {
    let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 200);
    let timing = answer.headers["server-timing"].to_str().expect("text").to_owned();
    timing.trim_end_matches('"').ends_with(['1', '3'])
}

async fn will_keep(proxy: &Process, expected: bool) {
    let begun = Instant::now();
    while keeps(proxy).await != expected {
        assert!(begun.elapsed() < Duration::from_secs(10), "the policy does not come into force\n{}", proxy.said());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn policies(rule: &str) -> Dir {
    let policies = Dir::new();
    put(&policies, "a.yaml", &sampling("all", NAMESPACE, rule));
    policies
}

#[test]
fn a_proxy_follows_over_tls_and_one_that_cannot_says_why() {
    run(async {
        let (origin, policies, right, wrong) =
            (Origin::echo(Protocol::Http1).await, policies(NEVER), Authority::new(), Authority::new());
        let control_plane = ControlPlane::secured(&policies, right.leaf(&["localhost"]).write(&policies, "server"));
        let port = control_plane.bound.push.port();
        let roots = |authority: &Authority, dir: &Dir| dir.write("roots.pem", authority.pem()).display().to_string();
        let named = |roots: String, name: &str| {
            format!("addresses: ['https://127.0.0.1:{port}'], rootFile: '{roots}', serverName: {name}")
        };
        let (one, two, three, four) = (Dir::new(), Dir::new(), Dir::new(), Dir::new());
        let good = gateway(&one, &named(roots(&right, &one), "localhost"), &origin).await;
        let strange = gateway(&two, &named(roots(&wrong, &two), "localhost"), &origin).await;
        let plain = gateway(&three, &format!("addresses: ['http://127.0.0.1:{port}']"), &origin).await;
        let misnamed = gateway(&four, &named(roots(&right, &four), "other.example"), &origin).await;
        will_keep(&good, false).await;
        control_plane.in_step(1).await;
        for (proxy, words) in [(&strange, "certificate"), (&plain, "127.0.0.1"), (&misnamed, "certificate")] {
            let is_told = || {
                let said = proxy.said();
                said.lines().any(|line| line.contains("cannot be followed") && line.contains(words))
            };
            eventually("it says why", is_told).await;
            assert!(keeps(proxy).await, "it serves without a policy");
            assert_eq!(proxy.metric("spanmesh_proxy_control_plane_connected", &[]), 0.0);
        }
        eventually("they are counted", || control_plane.metric("proxy_connections_failed_total") >= 3.0).await;
        assert_eq!(control_plane.metric("proxies_connected"), 1.0);
    });
}

#[test]
fn who_breaks_the_protocol_is_told_why_and_the_others_are_served() {
    run(async {
        let policies = policies(NEVER);
        let control_plane = ControlPlane::start(&policies);
        let address = control_plane.bound.push;
        let mut good = Follower::greeted(address, "good").await;
        good.take().await;
        control_plane.in_step(1).await;
        let ack = |nonce| From::Ack(v1::Ack { nonce, version: 1 });
        let refusal = |kind: &str, name: &str| {
            From::Nack(v1::Nack {
                nonce: 1,
                version: 1,
                refusals: vec![v1::Refusal { kind: kind.into(), name: name.into(), reason: "no".into() }],
            })
        };
        let services = |names: Vec<String>| From::Interest(v1::Interest { services: names });
        let node = v1::Node { namespace: "x".repeat(1000), ..v1::Node::default() };
        // Where it is not said otherwise it has said Hello and was pushed what it is to have.
        let first = |message: From| (vec![message], false);
        let then = |message: From| (vec![message], true);
        for ((messages, greets), code, words) in [
            (first(ack(1)), 3, "the first message must be a Hello"),
            (then(From::Hello(hello("bad"))), 3, "a second Hello"),
            (then(ack(2)), 3, "answers a push that it was not sent"),
            ((vec![ack(1), ack(1)], true), 3, "answers a push that it was not sent"),
            (then(refusal("policy", "other")), 3, "refuses what it was not sent"),
            (then(refusal("weather", "own")), 3, "refuses what it was not sent"),
            (then(services(vec!["no-point".into()])), 3, "names a service"),
            (then(services(vec![format!("{}.shop", "x".repeat(200))])), 3, "names a service"),
            (then(services((0..5000).map(|place| format!("s{place}.shop")).collect())), 3, "calls more services"),
            (first(From::Hello(v1::Hello { node: Some(node), ..hello("bad") })), 3, "longer than Kubernetes allows"),
        ] {
            let mut bad = Follower::connect(address).await;
            if greets {
                bad.send(From::Hello(hello("bad")));
                bad.push().await;
            }
            messages.into_iter().for_each(|message| bad.send(message));
            let status = bad.ended().await;
            assert!(status.code == code && status.message.contains(words), "{words}: {status:?}");
        }
        assert_eq!(control_plane.metric("missteps_total"), 10.0);
        // Bytes that are no message, and a length that nobody has.
        let endless = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        for (bytes, words) in [
            (endless, "length too large"),
            (Bytes::from_static(&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff]), "decode"),
            (Bytes::from_static(&[7, 0, 0, 0, 0]), "compression"),
        ] {
            let mut bad = Follower::connect(address).await;
            bad.send_bytes(bytes);
            let status = bad.ended().await;
            assert!(status.message.contains(words), "{words}: {status:?}");
        }
        control_plane.in_step(1).await;
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, ALWAYS));
        assert_eq!(good.take().await.changed.len(), 1, "the others are served");
    });
}

#[test]
fn who_stands_still_is_let_go_and_takes_no_place_from_others() {
    run(async {
        let (policies, authority) = (policies(NEVER), Authority::new());
        let plain = ControlPlane::start(&policies);
        let secured = ControlPlane::secured(&policies, authority.leaf(&["localhost"]).write(&policies, "server"));
        let connector = authority.client(&["h2"], &[&rustls::version::TLS13]);
        let mut still = Vec::new();
        for _ in 0..500 {
            still.push(TcpStream::connect(plain.bound.push).await.expect("connect"));
            still.push(TcpStream::connect(secured.bound.push).await.expect("connect"));
        }
        // One that begins a handshake and does not go on, and one that ends it and says nothing.
        let mut begun = TcpStream::connect(secured.bound.push).await.expect("connect");
        begun.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.expect("write");
        let mut silent = connect(&connector, "localhost", secured.bound.push).await.expect("a handshake");
        let mut mute = Follower::connect(plain.bound.push).await;
        let came = Instant::now();
        for _ in 0..20 {
            Follower::greeted(plain.bound.push, "good").await.take().await;
            let mut good = Follower::secured(secured.bound.push, &connector).await;
            good.send(From::Hello(hello("good")));
            good.take().await;
        }
        let took = came.elapsed();
        assert!(took < Duration::from_secs(8), "forty proxies are served in {took:?}");
        let status = mute.ended().await;
        assert!(status.code == 4 && status.message.contains("no Hello came"), "{status:?}");
        let mut end = [0; 512];
        while silent.read(&mut end).await.is_ok_and(|length| length > 0) {}
        while begun.read(&mut end).await.is_ok_and(|length| length > 0) {}
        for mut stream in still {
            while stream.read(&mut end).await.is_ok_and(|length| length > 0) {}
        }
        let took = came.elapsed();
        assert!(took < Duration::from_secs(30), "all are let go: {took:?}");
        assert!(plain.metric("proxy_connections_failed_total") >= 500.0);
        assert!(secured.metric("proxy_connections_failed_total") >= 502.0);
    });
}

#[test]
fn who_refuses_for_ever_is_not_sent_the_same_again() {
    run(async {
        let policies = policies(NEVER);
        let control_plane = ControlPlane::start(&policies);
        let mut follower = Follower::greeted(control_plane.bound.push, "one").await;
        for round in 0..20 {
            let push = follower.push().await;
            assert_eq!(push.changed.len(), 1);
            let refusal = |resource: &v1::Resource| v1::Refusal {
                kind: resource.kind.clone(),
                name: resource.name.clone(),
                reason: format!("round {round} {}", "x".repeat(10_000)),
            };
            let refusals = push.changed.iter().map(refusal).collect();
            follower.send(From::Nack(v1::Nack { nonce: push.nonce, version: push.version, refusals }));
            let words = format!("round {round} ");
            let shown = || control_plane.page("/proxies")["proxies"][0]["refusals"][0]["reason"].clone();
            eventually("it is shown", || shown().as_str().is_some_and(|reason| reason.starts_with(&words))).await;
            assert!(shown().as_str().is_some_and(|reason| reason.len() <= 512));
            let page = control_plane.page("/proxies");
            assert_eq!((page["converged"].as_u64(), page["proxies"][0]["inStep"].as_bool()), (Some(0), Some(false)));
            let probability = format!("{{name: all, action: {{probability: \"0.{}\"}}}}", round + 10);
            put(&policies, "a.yaml", &sampling("all", NAMESPACE, &probability));
        }
        assert_eq!(follower.push().await.nonce, 21);
        assert_eq!(control_plane.metric("pushes_total"), 21.0);
    });
}

#[test]
fn reports_of_nonsense_are_bounded_and_change_nothing_for_the_others() {
    run(async {
        let policies = policies(ADAPTS);
        let control_plane = ControlPlane::start(&policies);
        let (mut liar, mut honest) = (
            Follower::greeted(control_plane.bound.push, "liar").await,
            Follower::greeted(control_plane.bound.push, "honest").await,
        );
        liar.take().await;
        honest.take().await;
        let count = |operation: String, seen, kept, held| v1::RuleCount {
            policy: "shop/all".into(),
            rule: "rest".into(),
            operation,
            seen,
            kept,
            held,
        };
        let mut thresholds = 0;
        for round in 0..12 {
            let names = (0..2000)
                .map(|name| format!("GET /{round}/{name}/{}", "x".repeat(if name == 0 { 100_000 } else { 20 })));
            let rules = names.map(|name| count(name, u64::MAX, u64::MAX, Some(u64::MAX))).collect();
            for window in [0, 1, u32::MAX] {
                let mut lies =
                    v1::Report { window, spans: u64::MAX, unruled: u64::MAX, guard: u64::MAX, ..v1::Report::default() };
                lies.unknown = vec!["\u{1b}[2J".repeat(1000); 100];
                liar.send(From::Report(lies.clone()));
                lies.rules = Vec::clone(&rules);
                liar.send(From::Report(lies));
            }
            let truth = count("GET /".into(), 20, 2, None);
            honest.send(From::Report(v1::Report {
                window: 2000,
                rules: vec![truth],
                spans: 4,
                ..v1::Report::default()
            }));
            let push = tokio::time::timeout(Duration::from_secs(2), honest.push()).await;
            let Ok(push) = push else { continue };
            for resource in &push.changed {
                let said = v1::Thresholds::decode(resource.body.clone()).expect("thresholds");
                thresholds += 1;
                assert!(said.thresholds.len() <= 258, "{} of one rule", said.thresholds.len());
                assert!(said.thresholds.iter().all(|one| one.threshold < 1 << 56 && one.operation.len() <= 256));
                assert!(
                    said.limits.iter().all(|one| one.traces_per_second.is_finite() && one.proxies <= 2),
                    "{:?}",
                    said.limits
                );
            }
            honest.send(From::Ack(v1::Ack { nonce: push.nonce, version: push.version }));
            if thresholds > 1 {
                break;
            }
        }
        assert!(thresholds > 0, "the honest one has its thresholds");
        let page = control_plane.page("/proxies");
        let list = page["proxies"].as_array().expect("a list");
        assert!(list.iter().any(|proxy| proxy["pod"] == "honest" && proxy["decided"]["spans"] != 0), "{page}");
        assert!(page.to_string().len() < 50_000, "{} bytes of a page", page.to_string().len());
    });
}

#[test]
fn what_a_peer_of_another_version_says_besides_is_left_aside() {
    run(async {
        let policies = policies(NEVER);
        put(&policies, "b.yaml", &sampling("pay", "{kind: Service, name: pay}", ALWAYS));
        let control_plane = ControlPlane::start(&policies);
        // An older one: it knows one kind and names no services.
        let mut older = Follower::connect(control_plane.bound.push).await;
        let kinds = vec!["policy".to_owned()];
        older.send(From::Hello(v1::Hello { version: String::new(), kinds, ..hello("older") }));
        let push = older.take().await;
        assert_eq!(push.changed.iter().map(|resource| resource.kind.as_str()).collect::<Vec<_>>(), ["policy"]);
        older.send(From::Interest(v1::Interest { services: vec!["pay.shop".into()] }));
        // A newer one: a kind, fields and messages that are not known here.
        let mut newer = Follower::connect(control_plane.bound.push).await;
        let mut greeting = v1::Hello { services: vec!["pay.shop".into()], ..hello("newer") };
        greeting.kinds.push("weather".into());
        greeting.held.push(v1::Held { kind: "weather".into(), name: "rain".into(), digest: 7 });
        let mut bytes = greeting.encode_to_vec();
        bytes.extend_from_slice(UNKNOWN);
        // Field 1 of FromProxy is the Hello.
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut message);
        message.extend_from_slice(&bytes);
        message.extend_from_slice(UNKNOWN);
        newer.send_message(&message);
        newer.send_message(UNKNOWN);
        newer.send_message(&[]);
        let kinds = newer.take().await.changed.into_iter().map(|resource| resource.kind).collect::<Vec<_>>();
        assert_eq!(kinds, ["policy", "destination"]);
        control_plane.in_step(2).await;
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, ALWAYS));
        for follower in [&mut older, &mut newer] {
            assert_eq!(follower.take().await.changed[0].kind, "policy");
        }
    });
}

#[test]
fn a_control_plane_of_another_version_is_followed_as_far_as_it_is_understood() {
    run(async {
        let (origin, dir, mut pulpit) = (Origin::echo(Protocol::Http1).await, Dir::new(), Pulpit::start().await);
        let proxy = gateway(&dir, &format!("addresses: ['http://{}']", pulpit.address), &origin).await;
        let (mut followed, hello) = pulpit.next().await;
        assert_eq!(hello.node.map(|node| (node.service, node.namespace)), Some(("cart".into(), "shop".into())));
        let resource = |kind: &str, body: Vec<u8>| v1::Resource {
            kind: kind.into(),
            name: if kind == "policy" { "own" } else { "mesh" }.into(),
            digest: body.len() as u64,
            body: body.into(),
        };
        let mut newer = policy(v1::rule::Action::Never(v1::Empty {})).encode_to_vec();
        newer.extend_from_slice(UNKNOWN);
        // Thresholds of an older one have no limits.
        let thresholds = v1::Thresholds { thresholds: vec![threshold()], limits: Vec::new() };
        let changed = vec![
            resource("policy", newer),
            resource("weather", vec![1]),
            resource("thresholds", thresholds.encode_to_vec()),
        ];
        let push = v1::Push { nonce: 1, version: 9, whole: true, changed, ..v1::Push::default() };
        let mut bytes = v1::ToProxy { message: Some(To::Push(push)) }.encode_to_vec();
        bytes.extend_from_slice(UNKNOWN);
        followed.send_message(UNKNOWN);
        followed.send_message(&bytes);
        assert_eq!(followed.answer().await, From::Ack(v1::Ack { nonce: 1, version: 9 }));
        will_keep(&proxy, false).await;
        let report = followed.report().await;
        assert!(report.unknown.iter().any(|unknown| unknown.starts_with("weather/mesh")), "{:?}", report.unknown);
        assert!(report.unknown.iter().any(|unknown| unknown.starts_with("policy/own")), "{:?}", report.unknown);
        // An action that is not known is no reason to decide otherwise than before; it is refused by name.
        let odd = v1::Rule { policy: "shop/odd".into(), name: "odd".into(), ..v1::Rule::default() };
        let odd = v1::Policy {
            sampling: Some(v1::Chain { rules: vec![odd], ..v1::Chain::default() }),
            ..v1::Policy::default()
        };
        let nan = v1::Limit { policy: "shop/a".into(), rule: "b".into(), traces_per_second: f64::NAN, proxies: 1 };
        let nan = v1::Thresholds { thresholds: Vec::new(), limits: vec![nan] };
        let changed = vec![
            resource("policy", odd.encode_to_vec()),
            resource("thresholds", nan.encode_to_vec()),
            v1::Resource { name: "cart.shop".into(), ..resource("destination", b"\xff\xff".to_vec()) },
        ];
        followed.send(To::Push(v1::Push { nonce: 2, version: 10, changed, ..v1::Push::default() }));
        let From::Nack(nack) = followed.answer().await else { panic!("no Nack") };
        let names: Vec<_> =
            nack.refusals.iter().map(|refusal| (refusal.kind.as_str(), refusal.reason.as_str())).collect();
        assert!(
            matches!(&names[..], [("policy", one), ("thresholds", two), ("destination", _)]
            if one.contains("odd of shop/odd") && two.contains("no limit")),
            "{names:?}"
        );
        assert!(!keeps(&proxy).await, "what was there before goes on");
        followed.send(To::Push(v1::Push {
            nonce: 3,
            version: 11,
            changed: vec![resource("policy", policy(v1::rule::Action::Always(v1::Empty {})).encode_to_vec())],
            ..v1::Push::default()
        }));
        assert_eq!(followed.answer().await, From::Ack(v1::Ack { nonce: 3, version: 11 }));
        will_keep(&proxy, true).await;
    });
}

#[test]
fn a_control_plane_that_lies_is_left_and_asked_again_at_a_slower_and_slower_pace() {
    run(async {
        let (origin, dir, mut pulpit) = (Origin::echo(Protocol::Http1).await, Dir::new(), Pulpit::start().await);
        let proxy = gateway(&dir, &format!("addresses: ['http://{}']", pulpit.address), &origin).await;
        let (mut followed, _) = pulpit.next().await;
        followed.send(To::Push(v1::Push {
            nonce: 1,
            version: 1,
            whole: true,
            changed: vec![v1::Resource {
                kind: "policy".into(),
                name: "own".into(),
                digest: 1,
                body: policy(v1::rule::Action::Never(v1::Empty {})).encode_to_vec().into(),
            }],
            ..v1::Push::default()
        }));
        followed.answer().await;
        // Sent away, it comes back when it was told to.
        let begun = Instant::now();
        followed.send(To::Leave(v1::Leave { reason: "full".into(), after: 1500 }));
        let (mut followed, hello) = pulpit.next().await;
        assert!(begun.elapsed() >= Duration::from_millis(1500));
        assert_eq!(hello.held.iter().map(|held| held.name.as_str()).collect::<Vec<_>>(), ["own"]);
        let held = vec![v1::Held { kind: "policy".into(), name: "own".into(), digest: 1 }];
        followed.send(To::Push(v1::Push { nonce: 1, version: 2, whole: true, held, ..v1::Push::default() }));
        assert_eq!(followed.answer().await, From::Ack(v1::Ack { nonce: 1, version: 2 }));
        for lie in [
            Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1]),
            Bytes::from_static(&[0, 0, 0, 0, 2, 0xff, 0xff]),
            Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ] {
            followed.send_bytes(lie);
            let (next, hello) = pulpit.next().await;
            assert_eq!(hello.held.iter().map(|held| held.name.as_str()).collect::<Vec<_>>(), ["own"]);
            followed = next;
            assert!(!keeps(&proxy).await, "the last good policy goes on");
        }
        eventually("it is said", || proxy.said().contains("cannot be followed, the policy goes on as it is")).await;
        // Each stream ends before anything was pushed.
        let begun = Instant::now();
        let mut tries = 0;
        while begun.elapsed() < Duration::from_secs(3) {
            followed.end(14, "not now");
            followed = pulpit.next().await.0;
            tries += 1;
        }
        assert!(tries <= 6, "{tries} tries in three seconds");
        assert!(!keeps(&proxy).await);
    });
}

/// Follows as a proxy does, until it is dropped: it comes back after a pause, or when it was told to. Tells of each push.
async fn follow(address: SocketAddr, place: usize, told: mpsc::UnboundedSender<(usize, u64)>) {
    let mut tries = 0;
    loop {
        let mut away = Duration::from_millis(50) + Duration::from_millis(500 << tries.min(6)).mul_f64(rand::random());
        tries += 1;
        if let Ok(stream) = TcpStream::connect(address).await
            && let Ok(mut follower) = Follower::over(stream).await
        {
            follower.send(From::Hello(hello(&format!("pod-{place}"))));
            while let Ok(message) = follower.listen().await {
                match message {
                    To::Push(push) => {
                        tries = 0;
                        follower.send(From::Ack(v1::Ack { nonce: push.nonce, version: push.version }));
                        let _ = told.send((place, push.version));
                    }
                    To::Leave(leave) => {
                        away = away.max(Duration::from_millis(leave.after.into()));
                        break;
                    }
                    To::Permit(_) => {}
                }
            }
        }
        tokio::time::sleep(away).await;
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_whitespace().next().expect("a number").parse::<usize>().expect("a number") / 1024
}

#[test]
fn two_thousand_that_come_back_at_once_are_all_served() {
    const PROXIES: usize = 2000;
    run(async {
        let policies = policies(NEVER);
        let mut control_plane = ControlPlane::start(&policies);
        let address = control_plane.bound.push;
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for place in 0..PROXIES {
            tasks.spawn(follow(address, place, tell.clone()));
        }
        let mut all = async || {
            let mut seen = vec![false; PROXIES];
            let mut left = PROXIES;
            while left > 0 {
                let (place, _) = told.recv().await.expect("proxies follow");
                left -= usize::from(!std::mem::replace(&mut seen[place], true));
            }
        };
        all().await;
        let before = resident();
        control_plane.stop();
        let back = Instant::now();
        control_plane = ControlPlane::start_at(&policies, address);
        all().await;
        let took = back.elapsed();
        assert!(took < Duration::from_secs(25), "the last of them is back after {took:?}");
        control_plane.in_step(PROXIES as u64).await;
        let after = resident();
        assert!(after < before + 256, "{before} MiB before and {after} MiB after");
        assert_eq!(control_plane.metric("missteps_total"), 0.0);
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, ALWAYS));
        all().await;
        control_plane.in_step(PROXIES as u64).await;
    });
}

fn policy(action: v1::rule::Action) -> v1::Policy {
    let rule = v1::Rule { policy: "shop/all".into(), name: "all".into(), action: Some(action), ..v1::Rule::default() };
    v1::Policy { sampling: Some(v1::Chain { rules: vec![rule], ..v1::Chain::default() }), ..v1::Policy::default() }
}

fn threshold() -> v1::Threshold {
    v1::Threshold { policy: "shop/all".into(), rule: "all".into(), operation: String::new(), threshold: 0 }
}

/// Field 900 with a text, and field 901 with a number.
const UNKNOWN: &[u8] = &[0xa2, 0x38, 3, b'n', b'e', b'w', 0xa8, 0x38, 7];
