//! Several workers are one proxy: they share the load, their numbers add up, and none lives on alone.

use std::collections::BTreeMap;

use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, eventually, process, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
const WORKERS: usize = 3;
const CONNECTIONS: usize = 60;
const REQUESTS: usize = 10;

#[test]
fn connections_spread_over_the_workers_and_their_numbers_add_up() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Origin::hello(upstream).await;
            let dir = Dir::new();
            let config = format!(
                "workers: {WORKERS}\n\
                 listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
                origin.address,
                upstream.word()
            );
            let proxy = Process::start(PROGRAM, dir.as_ref(), &config).await;
            let before = wakes(proxy.id());
            assert_eq!(before.len(), WORKERS, "{before:?}");
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                clients.push(Client::connect(client, proxy.address("in")).await);
            }
            for one in &mut clients {
                for _ in 0..REQUESTS {
                    assert_eq!(one.get("/").await.status, 200);
                }
            }
            // A worker without connections wakes once a second; one with a few of them once a request at least.
            for (worker, count) in wakes(proxy.id()) {
                let count = count - before[&worker];
                assert!(count > REQUESTS * 2, "{worker} woke {count} times");
            }
            let all = (CONNECTIONS * REQUESTS) as f64;
            let metric = |name: &str| proxy.metric(&format!("spanmesh_proxy_{name}"), &["listener=\"in\""]);
            eventually("all requests are counted", || metric("requests_total") == all).await;
            assert_eq!(metric("connections_opened_total"), CONNECTIONS as f64);
            assert_eq!(metric("connections_active"), CONNECTIONS as f64);
            assert_eq!(metric("request_duration_seconds_count"), all);
            assert_eq!(proxy.metric("spanmesh_proxy_workers", &[]), WORKERS as f64);
            drop(clients);
            eventually("all connections are closed", || metric("connections_active") == 0.0).await;
            eventually("all requests are logged", || process::log(dir.as_ref()).len() == CONNECTIONS * REQUESTS).await;
        });
    }
}

/// How often each worker's thread has gone to sleep.
fn wakes(process: u32) -> BTreeMap<String, usize> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    let wakes = |thread: std::io::Result<std::fs::DirEntry>| {
        let thread = thread.ok()?.path();
        let name = std::fs::read_to_string(thread.join("comm")).ok()?.trim().to_owned();
        let status = std::fs::read_to_string(thread.join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        name.starts_with("worker-").then(|| Some((name, count.trim().parse().ok()?)))?
    };
    threads.filter_map(wakes).collect()
}
