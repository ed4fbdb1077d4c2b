use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn asked(traces: u32, per_second: f64) -> Asked {
    Asked { traces, per_second, time: secs(60) }
}

fn trace(number: u64) -> TraceId {
    u128::from(number).to_be_bytes()
}

#[test]
fn it_ends_with_the_last_trace_that_was_asked_for() {
    let mut capture = Capture::new(secs(0), asked(2, 1000.0));
    capture.connected(7);
    assert_eq!((capture.poll(secs(1)), capture.poll(secs(2))), (vec![7], vec![]));
    assert!(capture.captured(7, trace(1)));
    assert_eq!((capture.status().state, capture.poll(secs(3))), (State::Running, vec![7]));
    assert!(capture.captured(7, trace(2)));
    assert_eq!((capture.status().state, capture.poll(secs(4)), capture.wake()), (State::Enough, vec![], None));
    assert_eq!(capture.status().traces, [trace(1), trace(2)]);
    assert_eq!(capture.status().permits, 0);
}

#[test]
fn it_ends_by_itself_when_the_time_is_over_and_what_comes_late_still_counts() {
    let mut capture = Capture::new(secs(5), asked(10, 10.0));
    capture.connected(1);
    assert_eq!(capture.poll(secs(6)), [1]);
    assert_eq!(capture.wake(), Some(secs(65)));
    assert!(capture.poll(secs(65)).is_empty());
    assert_eq!((capture.status().state, (capture.status().permits == 0)), (State::TimeOver, false));
    assert!(capture.captured(1, trace(1)));
    assert_eq!(
        (capture.status().state, capture.status().traces.len(), (capture.status().permits == 0)),
        (State::TimeOver, 1, true)
    );
}

#[test]
fn permits_come_at_the_rate_that_was_asked_for_over_all_proxies() {
    let mut capture = Capture::new(secs(0), asked(1000, 5.0));
    (0..100).for_each(|proxy| capture.connected(proxy));
    let mut given = 0;
    let mut now = secs(0);
    while let Some(wake) = capture.wake().filter(|wake| *wake <= secs(10)) {
        now = now.max(wake);
        given += capture.poll(now).len();
    }
    assert_eq!(given, 51);
    // Nobody asked for long: it does not make up for it.
    assert_eq!(capture.poll(secs(30)).len(), 1);
}

#[test]
fn a_trace_without_a_permit_is_refused_and_one_of_two_proxies_counts_once() {
    let mut capture = Capture::new(secs(0), asked(10, 1000.0));
    capture.connected(1);
    capture.connected(2);
    assert!(!capture.captured(1, trace(1)));
    capture.poll(secs(1));
    assert!(capture.captured(1, trace(1)) && capture.captured(2, trace(1)));
    assert!(!capture.captured(1, trace(2)) && !capture.captured(3, trace(3)));
    assert_eq!((capture.status().traces, capture.status().refused), (&[trace(1)][..], 3));
}

#[test]
fn a_proxy_that_leaves_gives_its_permit_back_and_may_still_have_used_it() {
    let mut capture = Capture::new(secs(0), asked(10, 1.0));
    capture.connected(1);
    assert_eq!(capture.poll(secs(1)), [1]);
    capture.disconnected(1);
    assert_eq!(capture.status().permits, 0);
    capture.connected(1);
    assert!(capture.captured(1, trace(1)) && !capture.captured(1, trace(2)));
    assert_eq!(capture.poll(secs(2)), [1]);
}

#[test]
fn one_busy_proxy_among_a_thousand_is_found_by_what_it_wants() {
    let mut capture = Capture::new(secs(0), asked(20, 10.0));
    (0..1000).for_each(|proxy| capture.connected(proxy));
    let mut now = secs(0);
    while capture.status().state == State::Running {
        capture.wanted(777);
        for proxy in capture.poll(now) {
            if proxy == 777 {
                capture.captured(777, trace(now.as_millis() as u64));
            }
        }
        now += Duration::from_millis(100);
    }
    // Half of the permits are its own.
    assert_eq!((capture.status().state, capture.status().traces.len()), (State::Enough, 20));
    assert!(now <= secs(5), "{now:?}");
}

/// What a proxy knows: a permit is good for as long as the stream over which it came.
#[derive(Default)]
struct Proxy {
    connected: bool,
    permit: bool,
    /// Kept with a permit, and not told yet.
    unsent: Option<TraceId>,
}

#[test]
fn in_whatever_order_things_happen_the_counts_are_exact_and_within_their_bounds() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let proxies = rng.random_range(1..30u64);
        let asked = Asked { traces: rng.random_range(1..40), per_second: rng.random_range(1.0..200.0), time: secs(20) };
        let mut capture = Capture::new(secs(0), asked);
        let mut mesh: BTreeMap<u64, Proxy> = (0..proxies).map(|proxy| (proxy, Proxy::default())).collect();
        let mut kept = BTreeSet::new();
        let (mut permits, mut number, mut now) = (0.0, 0, secs(0));
        let mut lost = 0;
        for _ in 0..3000 {
            let id = rng.random_range(0..proxies);
            let proxy = mesh.get_mut(&id).expect("all are there");
            match rng.random_range(0..10) {
                0 if !proxy.connected => {
                    proxy.connected = true;
                    capture.connected(id);
                    // What it had no time to tell.
                    if let Some(trace) = proxy.unsent.take() {
                        assert!(capture.captured(id, trace), "{seed}");
                    }
                }
                1 if proxy.connected && rng.random_bool(0.3) => {
                    lost += u32::from(proxy.permit || proxy.unsent.is_some());
                    (proxy.connected, proxy.permit) = (false, false);
                    capture.disconnected(id);
                }
                2..5 if proxy.permit => {
                    // Now and then another proxy has the same trace.
                    number += u64::from(rng.random_bool(0.9));
                    proxy.permit = false;
                    proxy.unsent = Some(trace(number));
                    kept.insert(trace(number));
                }
                5..8 if proxy.connected => {
                    if let Some(trace) = proxy.unsent.take() {
                        assert!(capture.captured(id, trace), "{seed}");
                    }
                }
                8 if proxy.connected => capture.wanted(id),
                _ => now += Duration::from_millis(rng.random_range(0..20)),
            }
            let running = capture.status().state == State::Running;
            for id in capture.poll(now) {
                assert!(running && now < secs(20), "{seed}");
                let proxy = mesh.get_mut(&id).expect("one of these");
                assert!(proxy.connected && !proxy.permit && proxy.unsent.is_none(), "{seed}");
                proxy.permit = true;
                permits += 1.0;
            }
            let paced = 1.0 + asked.per_second * (now + LATE).as_secs_f64();
            assert!(permits <= paced, "{seed}: {permits} of {paced}");
            let collected = capture.status().traces.len();
            assert!(collected <= kept.len(), "{seed}");
            assert!(collected as u64 <= u64::from(asked.traces) + proxies + u64::from(lost), "{seed}");
            assert!(now < secs(20) || capture.status().state != State::Running, "{seed}");
        }
        // All come back and tell what they have: nothing that was kept is missing.
        for (&id, proxy) in &mut mesh {
            capture.connected(id);
            if let Some(trace) = proxy.unsent.take() {
                assert!(capture.captured(id, trace), "{seed}");
            }
        }
        let status = capture.status();
        assert_eq!(status.traces.iter().copied().collect::<BTreeSet<_>>(), kept, "{seed}");
        assert_eq!((status.traces.len(), status.refused), (kept.len(), 0), "{seed}");
    }
}

#[test]
fn with_enough_requests_it_collects_what_was_asked_for_and_at_most_one_more_for_each_proxy() {
    for (traces, proxies, per_second) in [(1, 1, 1.0), (1, 1000, 100.0), (50, 3, 10.0), (1000, 1000, 1000.0)] {
        let mut rng = SmallRng::seed_from_u64(u64::from(traces) + proxies);
        let mut capture = Capture::new(secs(0), asked(traces, per_second));
        (0..proxies).for_each(|proxy| capture.connected(proxy));
        let (mut out, mut now, mut number) = (Vec::new(), secs(0), 0);
        while capture.status().state == State::Running {
            out.extend(capture.poll(now));
            // Requests come in bursts: most permits lie for a while.
            if rng.random_bool(0.2) {
                for proxy in out.drain(..) {
                    number += 1;
                    assert!(capture.captured(proxy, trace(number)));
                }
            }
            now += Duration::from_millis(100);
        }
        for proxy in out {
            number += 1;
            assert!(capture.captured(proxy, trace(number)));
        }
        let collected = capture.status().traces.len() as u64;
        assert!((u64::from(traces)..=u64::from(traces) + proxies).contains(&collected), "{collected}");
        assert_eq!((capture.status().state, collected), (State::Enough, number));
    }
}
