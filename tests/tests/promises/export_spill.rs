//! Spans that memory cannot hold wait on the disk and arrive once; a process that is killed leaves them to the next; a disk
//! that takes nothing changes nothing but the books.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use spanmesh_tests::collector::{Act, Conduct};
use spanmesh_tests::{Books, Client, Collector, Dir, Origin, Process, Protocol, eventually, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// One after which there is another try.
fn refusal(protocol: Protocol) -> Act {
    match protocol {
        Protocol::Http1 => Act::Answer(503, Vec::new(), b""),
        Protocol::Http2 => Act::Status(14, Vec::new()),
    }
}

/// The numbers of the spans in each request of the collector.
fn numbers(collector: &Collector) -> Vec<Vec<u64>> {
    let requests = collector.state.requests.borrow();
    let spans = requests.iter().map(|received| &received.request.resource_spans[0].scope_spans[0].spans);
    spans.map(|spans| spans.iter().map(|span| number(&span.span_id)).collect()).collect()
}

fn number(id: &[u8]) -> u64 {
    u64::from_be_bytes(id.try_into().expect("eight bytes")) - 1
}

#[test]
fn ten_minutes_without_a_receiver_cost_no_span() {
    // A hundredth of the time, of the memory and of the disk: 6 s at 500 spans a second.
    for (protocol, cut) in [(Protocol::Http1, false), (Protocol::Http2, true)] {
        run(async move {
            let (collector, dir) = (Collector::start(protocol).await, Dir::new());
            match cut {
                true => collector.meets(vec![Conduct::Cut(b""); 10_000]),
                false => collector.usually(refusal(protocol)),
            }
            let delivery = format!(
                "queue: 160Ki, giveUp: 3s, backoffMax: 300ms, spans: 50, spill: {{path: {}, bytes: 2560Ki}}",
                dir.as_ref().display()
            );
            let mut books = Books::open(&collector.target(protocol, ""), &delivery);
            let begun = Instant::now();
            for round in 0..300_u32 {
                books.make(10);
                tokio::time::sleep_until((begun + round * Duration::from_millis(20)).into()).await;
            }
            assert!(books.spilled() > 1000, "{} on the disk", books.spilled());
            assert_eq!(books.dropped(""), 0);
            books.balance(300);
            let before = collector.requests();
            collector.state.conducts.borrow_mut().clear();
            collector.usually(Act::Take);
            eventually("all are exported", || books.exported() == 3000).await;
            let mut arrived: Vec<u64> = numbers(&collector)[before..].concat();
            arrived.sort();
            assert_eq!(arrived, (1..=3000).collect::<Vec<_>>(), "{protocol:?}: each of them once");
            books.close(Duration::from_secs(5)).await;
            assert_eq!((books.exported(), books.spilled(), collector.taken()), (3000, 0, 3000));
        });
    }
}

#[test]
fn the_oldest_come_first_and_new_ones_do_not_wait_for_them() {
    for protocol in BOTH {
        run(async move {
            let (collector, dir) = (Collector::start(protocol).await, Dir::new());
            collector.usually(refusal(protocol));
            let spill = format!("spans: 10, queue: 16Ki, spill: {{path: {}}}", dir.as_ref().display());
            let mut books = Books::open(&collector.target(protocol, ""), &spill);
            books.make(1000);
            eventually("most are on the disk", || books.spilled() >= 900).await;
            collector.usually(Act::Late(Duration::from_millis(5)));
            let before = collector.requests();
            books.make(10);
            eventually("all are exported", || books.exported() == 1010).await;
            let numbers = numbers(&collector).split_off(before);
            let new = numbers.iter().position(|request| request.contains(&1001)).expect("they came");
            assert!(new <= 12, "new spans came after {new} requests of {}", numbers.len());
            // The few that were still in memory are newer than those on the disk.
            let spilled: Vec<_> = numbers.concat().into_iter().filter(|number| *number <= 900).collect();
            let falls = spilled.windows(2).filter(|pair| pair[0] > pair[1]).count();
            assert!(falls <= 2, "{falls} times something older came later: {spilled:?}");
            books.close(Duration::from_secs(5)).await;
        });
    }
}

#[test]
fn what_cannot_be_sent_before_the_end_is_sent_by_the_next_process() {
    for protocol in BOTH {
        run(async move {
            let (collector, dir) = (Collector::start(protocol).await, Dir::new());
            collector.usually(refusal(protocol));
            let spill = format!(
                "spans: 100, queue: 64Ki, backoff: 1h, backoffMax: 1h, spill: {{path: {}}}",
                dir.as_ref().display()
            );
            let mut books = Books::open(&collector.target(protocol, ""), &spill);
            books.make(1000);
            eventually("it has the folder", || books.spilled() > 0).await;
            let mut other = Books::open(&collector.target(protocol, ""), &spill);
            other.make(1);
            books.close(Duration::from_millis(300)).await;
            assert_eq!((books.spilled(), books.dropped("")), (1000, 0), "{protocol:?}");
            // It had no right to the folder before.
            eventually("the next has them", || other.recovered() == 1000).await;
            other.close(Duration::from_millis(300)).await;
            assert_eq!((other.spilled(), other.dropped("")), (1001, 0));
            collector.usually(Act::Take);
            let mut third = Books::open(&collector.target(protocol, ""), &spill);
            eventually("all are exported", || third.exported() == 1001).await;
            third.close(Duration::from_secs(5)).await;
            assert_eq!((collector.taken(), third.spilled()), (1001, 0));
        });
    }
}

#[test]
fn the_books_balance_while_the_disk_is_full_missing_or_taken_away() {
    run(async {
        let (collector, dir) = (Collector::start(Protocol::Http1).await, Dir::new());
        collector.usually(refusal(Protocol::Http1));
        let target = collector.target(Protocol::Http1, "");
        let small = format!("spans: 10, queue: 8Ki, spill: {{path: {}, bytes: 64Ki}}", dir.as_ref().display());
        let mut books = Books::open(&target, &small);
        for _ in 0..40 {
            books.make(50);
            books.balance(300);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        eventually("the oldest on the disk go", || books.dropped("spill_full") > 500).await;
        assert!(books.spilled() > 100 && books.dropped("spill_failed") == 0);
        books.balance(60);
        std::fs::remove_dir_all(dir.path("there")).expect("removed");
        books.make(500);
        eventually("what was there is lost", || books.dropped("spill_lost") > 100).await;
        let failed = books.dropped("spill_failed");
        eventually("the folder is made again", || {
            books.make(10);
            books.spilled() > 50
        })
        .await;
        assert!(failed < 500);
        collector.usually(Act::Take);
        books.close(Duration::from_secs(5)).await;
        assert_eq!(books.exported(), collector.taken());

        let nowhere = "spans: 10, queue: 8Ki, spill: {path: /proc/nowhere}";
        let mut books = Books::open(&target, nowhere);
        collector.usually(refusal(Protocol::Http1));
        books.make(1000);
        eventually("no disk", || books.dropped("spill_failed") > 900).await;
        collector.usually(Act::Take);
        books.close(Duration::from_secs(5)).await;
        assert_eq!(books.exported() + books.dropped("spill_failed"), 1000);
    });
}

#[test]
fn what_a_disk_that_hangs_to_the_end_was_given_is_counted() {
    run(async {
        let (collector, dir) = (Collector::start(Protocol::Http1).await, Dir::new());
        collector.usually(refusal(Protocol::Http1));
        // Whoever opens a pipe to read it waits for somebody who writes: the disk hangs at what an earlier process left.
        let folder = dir.path("there");
        std::fs::create_dir(&folder).expect("a folder");
        let pipe = folder.join("0000000000000001.spans");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let spill = format!("spans: 10, queue: 8Ki, spill: {{path: {}}}", dir.as_ref().display());
        let mut books = Books::open(&collector.target(Protocol::Http1, ""), &spill);
        books.make(1000);
        eventually("they were tried", || collector.requests() > 0).await;
        let begun = Instant::now();
        books.close(Duration::from_millis(300)).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert_eq!((books.spilled(), books.dropped("spill_failed")), (0, 1000));
    });
}

#[test]
fn a_disk_that_takes_nothing_changes_nothing_for_requests_and_is_spoken_of_once() {
    run(async {
        let (origin, dir) = (Origin::hello(Protocol::Http1).await, Dir::new());
        let process =
            Process::start(PROGRAM, dir.as_ref(), &gateway(&origin, "http://127.0.0.1:9", "/proc/nowhere")).await;
        let mut client = Client::connect(Protocol::Http1, process.address("in")).await;
        for _ in 0..300 {
            assert_eq!(client.get("/x").await.status, 200);
        }
        let dropped = || process.metric("spanmesh_proxy_spans_dropped_total", &["spill_failed"]);
        eventually("spans are dropped", || dropped() > 300.0).await;
        assert_eq!(process.said().matches("the disk takes no spans").count(), 1, "{}", process.said());
    });
}

fn gateway(origin: &Origin, endpoint: &str, folder: &str) -> String {
    format!(
        "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n\
         policy: {{destinations: [{{name: there, otlpHttp: {{endpoint: '{endpoint}'}}, delivery: {{age: 5ms, queue: 1Ki, \
         spans: 6, backoff: 5ms, backoffMax: 20ms, spill: {{path: {folder}}}}}}}]}}\n",
        origin.address
    )
}

#[test]
fn a_process_that_is_killed_leaves_what_it_wrote_and_nothing_broken_is_sent() {
    // `LONG_TESTS=1` kills it 200 times.
    let rounds = if std::env::var_os("LONG_TESTS").is_some() { 200 } else { 20 };
    run_long(async move {
        let (origin, collector, dir) =
            (Origin::hello(Protocol::Http1).await, Collector::start(Protocol::Http1).await, Dir::new());
        let yaml = gateway(&origin, &format!("http://{}", collector.address), "DIR/spill");
        let (mut kept, mut lost, mut left) = (0.0, 0.0, 0.0);
        for round in 0..rounds {
            // In one round of four it is killed while it takes spans from the disk again.
            let takes = round % 4 == 1;
            collector.usually(if takes { Act::Late(Duration::from_millis(1)) } else { refusal(Protocol::Http1) });
            let mut process = Process::start(PROGRAM, dir.as_ref(), &yaml).await;
            let metric = |name: &str, label: &str| process.metric(&format!("spanmesh_proxy_spans_{name}"), &[label]);
            eventually("the folder is ours", || metric("recovered_total", "") >= kept).await;
            let damaged = metric("dropped_total", "spill_lost");
            assert!(damaged <= 6.0, "{damaged} lost: more than one request");
            lost += damaged;
            left += metric("recovered_total", "");
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let address = process.address("in");
                    tokio::task::spawn_local(async move {
                        let mut client = Client::connect(Protocol::Http1, address).await;
                        while client.get("/x").await.status == 200 {}
                    })
                })
                .collect();
            let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), round) % 150;
            tokio::time::sleep(Duration::from_millis(100 + random)).await;
            // What is counted as spilled was synced, so all of it must be there again.
            kept = if takes { 0.0 } else { metric("spilled", "") };
            tokio::time::sleep(Duration::from_millis(random % 10)).await;
            clients.iter().for_each(|client| client.abort());
            process.signal(Signal::KILL);
            process.exit_code().await;
        }
        let taken = collector.taken();
        let before = collector.requests();
        collector.usually(Act::Take);
        let process = Process::start(PROGRAM, dir.as_ref(), &yaml).await;
        let metric = |name: &str| process.metric(&format!("spanmesh_proxy_spans_{name}"), &[]);
        eventually("all is sent", || {
            metric("recovered_total") >= kept && metric("spilled") + metric("in_flight") == 0.0
        })
        .await;
        let (recovered, exported, dropped) =
            (metric("recovered_total"), metric("exported_total"), metric("dropped_total"));
        assert_eq!(recovered, exported + dropped);
        assert_eq!(exported as u64, collector.taken() - taken);
        let requests = collector.state.requests.borrow();
        let mut seen = HashMap::new();
        for span in
            requests[before..].iter().flat_map(|received| &received.request.resource_spans[0].scope_spans[0].spans)
        {
            *seen.entry(span.span_id.clone()).or_insert(0) += 1;
            assert!(
                span.name.starts_with("GET") && span.trace_id.len() == 16 && span.end_time_unix_nano > 0,
                "{span:?}"
            );
        }
        assert!(seen.values().all(|times| *times == 1) && seen.len() == exported as usize);
        assert!(left > 0.0);
        eprintln!("{rounds} times: {left} spans were found, {exported} at last, {lost} were lost on the way");
    });
}

/// For what may take longer than a test should.
fn run_long<F: Future<Output = ()>>(body: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(300), body).await.expect("the test did not end in time");
    });
}
