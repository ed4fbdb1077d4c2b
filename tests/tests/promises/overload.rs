//! When there is no room, new work is refused by name and counted, what is there goes on, and the end of the shortage
//! is seen. (The memory limit is proven in `limits_memory`.)

use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use spanmesh_tests::origin::full;
use spanmesh_tests::process::{self, Start};
use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, Proxy, Wire, eventually, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");

fn between(upstream: SocketAddr, protocol: Protocol, more: &str) -> String {
    format!(
        "{more}listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{upstream}'], protocol: {}}}\n",
        protocol.word()
    )
}

#[test]
fn beyond_its_connections_it_refuses_and_says_overload() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Origin::hello(upstream).await;
            let proxy = Proxy::start(&between(origin.address, upstream, "limits: {connections: 3}\n"));
            let mut clients = Vec::new();
            for _ in 0..3 {
                let mut one = Client::connect(client, proxy.address("in")).await;
                assert_eq!(one.get("/").await.status, 200);
                clients.push(one);
            }
            for _ in 0..2 {
                let mut refused = Wire::connect(proxy.address("in")).await;
                assert!(refused.rest().await.is_empty(), "closed without a word");
            }
            let active = || proxy.metric("spanmesh_proxy_connections_active", &[]);
            assert_eq!(proxy.metric("spanmesh_proxy_connections_refused_total", &["reason=\"overload\""]), 2.0);
            assert_eq!(active(), 3.0);
            let log = proxy.logged(5).await;
            assert_eq!(log.iter().filter(|line| line["flag"] == "overload").count(), 2);
            for one in &mut clients {
                assert_eq!(one.get("/").await.status, 200, "what is there goes on");
            }
            clients.pop();
            eventually("there is room", || active() == 2.0).await;
            assert_eq!(Client::connect(client, proxy.address("in")).await.get("/").await.status, 200);
        });
    }
}

#[test]
fn without_file_descriptors_it_serves_what_it_has_and_recovers() {
    run(async {
        let origin = Origin::start(Protocol::Http1, |request| async move {
            if request.uri().path() == "/hold" {
                std::future::pending::<()>().await;
            }
            Response::new(full("hello"))
        })
        .await;
        let dir = Dir::new();
        let yaml = between(origin.address, Protocol::Http1, "");
        let start = Start { program: PROGRAM, dir: dir.as_ref(), yaml: &yaml, open_files: Some(64), cgroup: None };
        let mut proxy = Process::spawn(start).await;
        let mut first = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(first.get("/").await.status, 200);
        // The log's file is opened with its first line.
        eventually("it is logged", || !process::log(dir.as_ref()).is_empty()).await;
        // Each has its own connection to the origin, so that the last quarter, which no newcomer gets, is used up too.
        let mut crowd = Vec::new();
        for _ in 0..100 {
            let mut wire = Wire::connect(proxy.address("in")).await;
            if wire.send(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await.is_ok() {
                crowd.push(wire);
            }
        }
        // Asked of the log: the status server may have no descriptor left either.
        let refused = || process::log(dir.as_ref()).iter().filter(|line| line["flag"] == "overload").count();
        eventually("it refuses", || refused() >= 20).await;
        assert!(open_files(proxy.id()) >= 48);
        // The connection to the origin may have been closed in between, so one that is there is all that is asked for.
        for _ in 0..20 {
            assert_eq!(first.get("/").await.status, 200);
        }
        let before = processor_ticks(proxy.id());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ticks = processor_ticks(proxy.id()) - before;
        assert!(ticks < 20, "accept spins: {ticks} of 100 ticks");

        drop(crowd);
        eventually("there are descriptors", || open_files(proxy.id()) < 40).await;
        assert_eq!(Client::connect(Protocol::Http1, proxy.address("in")).await.get("/").await.status, 200);
        let refused = proxy.metric("spanmesh_proxy_connections_refused_total", &["reason=\"overload\""]);
        let limited = proxy.metric("spanmesh_proxy_limits_reached_total", &["limit=\"descriptors\""]);
        assert!(refused >= 20.0 && limited == refused, "{refused} {limited}");
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.exit_code().await, Some(0), "{}", proxy.said());
    });
}

/// Not one descriptor is left, on a proxy that had plenty: accept itself fails.
#[test]
fn accept_that_fails_is_tried_again_and_nobody_who_waits_is_lost() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (origin, other) = (Origin::hello(protocol).await, Origin::hello(protocol).await);
            let dir = Dir::new();
            let yaml = format!(
                "listeners:\n- name: in\n  mode: inbound\n  address: '127.0.0.1:0'\n  protocol: http\n  routes:\n  \
                 - {{name: other, match: {{pathPrefix: /other}}, upstream: other}}\n  - {{name: app, upstream: app}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}'], protocol: {proto}, idleTimeout: 60s}}\n\
                 - {{name: other, addresses: ['{}'], protocol: {proto}}}\n",
                origin.address,
                other.address,
                proto = protocol.word()
            );
            let proxy = Process::start(PROGRAM, dir.as_ref(), &yaml).await;
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            assert_eq!(client.get("/").await.status, 200);
            eventually("it is logged", || process::log(dir.as_ref()).len() == 1).await;

            let before = open_files_limit(proxy.id(), Some(3));
            let mut waiting = Vec::new();
            for _ in 0..5 {
                let mut wire = Wire::connect(proxy.address("in")).await;
                wire.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
                waiting.push(wire);
            }
            for _ in 0..20 {
                assert_eq!(client.get("/").await.status, 200, "what is there goes on");
            }
            assert_eq!(client.get("/other").await.status, 503, "no descriptor for a connection to the origin");
            let ticks = processor_ticks(proxy.id());
            tokio::time::sleep(Duration::from_secs(2)).await;
            let ticks = processor_ticks(proxy.id()) - ticks;
            assert!(ticks < 40, "accept spins: {ticks} of 200 ticks");
            assert_eq!(client.get("/").await.status, 200);

            open_files_limit(proxy.id(), before);
            for wire in &mut waiting {
                assert!(wire.head().await.starts_with("HTTP/1.1 200 "), "whoever waited is served");
            }
            assert_eq!(client.get("/other").await.status, 200);
            let failed = proxy.metric("spanmesh_proxy_accept_errors_total", &["kind=\"files\""]);
            assert!((2.0..100.0).contains(&failed), "{failed} in two seconds");
            let log = process::log(dir.as_ref());
            assert_eq!(log.iter().filter(|line| line["flag"] == "overload").count(), 1, "{log:?}");
        });
    }
}

/// Sets the soft limit of a process of ours and returns what it was.
fn open_files_limit(process: u32, current: Option<u64>) -> Option<u64> {
    let process = Pid::from_raw(i32::try_from(process).expect("a process")).expect("a process");
    // The hard one is inherited.
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(process), Resource::Nofile, Rlimit { current, maximum }).expect("a limit").current
}

fn open_files(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// Time that the process has used, in hundredths of a second.
fn processor_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
    // After the name in parentheses: user time is the 12th field, system time the 13th.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}
