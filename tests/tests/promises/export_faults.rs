//! Whatever a receiver does, every span is accounted for: created = exported + rejected + dropped + in flight, and what is
//! counted as exported is what the receiver took.

use std::time::{Duration, Instant};

use spanmesh_tests::collector::{Act, Conduct, retry_info};
use spanmesh_tests::{Books, Collector, Protocol, run};

fn answer(status: u16) -> Act {
    Act::Answer(status, Vec::new(), b"as told")
}

static HUGE: [u8; 5 << 20] = [0; 5 << 20];
const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// What the acts make of ten spans: requests in all, exported, rejected, dropped for this reason.
fn becomes(protocol: Protocol, acts: Vec<Act>, requests: usize, exported: u64, rejected: u64, reason: &'static str) {
    run(async move {
        let told = acts.clone();
        // Only when it is wanted: an answer may be long.
        let what = || format!("{protocol:?} {told:?}").chars().take(400).collect::<String>();
        let collector = Collector::start(protocol).await;
        collector.will(acts);
        let mut books = Books::open(&collector.target(protocol, ""), "");
        books.make(10);
        books.settled().await;
        assert_eq!((books.exported(), books.rejected()), (exported, rejected), "{}", what());
        assert_eq!(books.dropped(reason), 10 - exported - rejected, "{}", what());
        // One more, so that no request that should not be is still to come.
        books.make(1);
        books.close(Duration::from_secs(5)).await;
        assert_eq!(collector.requests(), requests + 1, "{}", what());
        assert_eq!(books.exported(), collector.taken(), "{}", what());
    });
}

#[test]
fn what_may_be_sent_again_is_and_arrives_once() {
    for status in [429, 502, 503, 504] {
        becomes(Protocol::Http1, vec![answer(status), answer(status)], 3, 10, 0, "none");
    }
    for code in [1, 4, 10, 11, 14, 15] {
        becomes(Protocol::Http2, vec![Act::Status(code, Vec::new())], 2, 10, 0, "none");
    }
    becomes(Protocol::Http2, vec![Act::Status(8, retry_info(1))], 2, 10, 0, "none");
}

#[test]
fn what_must_not_be_sent_again_is_not() {
    for status in [400, 401, 403, 404, 408, 415, 500, 501] {
        becomes(Protocol::Http1, vec![answer(status)], 1, 0, 0, "\"refused\"");
    }
    becomes(Protocol::Http1, vec![answer(413)], 1, 0, 0, "\"too_large\"");
    for code in [2, 3, 5, 6, 7, 9, 12, 13, 16] {
        becomes(Protocol::Http2, vec![Act::Status(code, Vec::new())], 1, 0, 0, "\"refused\"");
    }
}

#[test]
fn a_part_that_is_rejected_is_counted_and_not_sent_again() {
    for protocol in BOTH {
        becomes(protocol, vec![Act::Partial(3, "too old")], 1, 7, 3, "none");
    }
}

#[test]
fn too_large_a_request_is_halved_once() {
    let large = || Act::Status(8, Vec::new());
    becomes(Protocol::Http2, vec![large()], 3, 10, 0, "none");
    becomes(Protocol::Http2, vec![large(), large()], 3, 5, 0, "\"too_large\"");
    becomes(Protocol::Http2, vec![large(), large(), large()], 3, 0, 0, "\"too_large\"");
}

#[test]
fn a_yes_that_is_none_does_not_count_as_one() {
    let says = |kind: &str, body| Act::Answer(200, vec![("content-type", kind.to_owned())], body);
    becomes(Protocol::Http1, vec![says("text/html", b"<html>welcome</html>")], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http1, vec![says("application/x-protobuf", b"\xff\xff\xff")], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http1, vec![says("application/json", b"[1]")], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http2, vec![Act::Message(b"\xff\xff\xff")], 1, 0, 0, "\"bad_answer\"");
    // An error inside.
    let status = b"\x08\x0d\x12\x03bad";
    becomes(
        Protocol::Http1,
        vec![says("application/json", br#"{"code":13,"message":"bad"}"#)],
        1,
        0,
        0,
        "\"bad_answer\"",
    );
    becomes(Protocol::Http1, vec![says("application/x-protobuf", status)], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http2, vec![Act::Message(status)], 1, 0, 0, "\"bad_answer\"");
    // More than an answer may have.
    becomes(Protocol::Http1, vec![says("application/x-protobuf", &HUGE)], 1, 0, 0, "\"bad_answer\"");
    becomes(Protocol::Http2, vec![Act::Message(&HUGE)], 1, 0, 0, "\"bad_answer\"");
}

#[test]
fn what_only_looks_like_grpc_is_told_from_it() {
    let says = |status, kind: &str, body| Act::Answer(status, vec![("content-type", kind.to_owned())], body);
    for (act, requests, exported, reason) in [
        (says(200, "text/html", b"<html>welcome</html>"), 1, 0, "\"bad_answer\""),
        (says(200, "application/grpc", b""), 1, 0, "\"bad_answer\""),
        // Longer than an answer may be, and compressed as nothing said: the receiver may have taken them all the same.
        (says(200, "application/grpc", b"\0\x10\0\0\0"), 1, 0, "\"bad_answer\""),
        (says(200, "application/grpc", b"\x01\0\0\0\x03abc"), 1, 0, "\"bad_answer\""),
        (Act::Status(0, Vec::new()), 1, 0, "\"bad_answer\""),
        (Act::Answer(302, vec![("location", "http://127.0.0.1:9/".into())], b""), 1, 0, "\"redirected\""),
        (says(404, "text/plain", b"nobody here"), 1, 0, "\"refused\""),
        (says(503, "text/plain", b"later"), 2, 10, "none"),
    ] {
        becomes(Protocol::Http2, vec![act], requests, exported, 0, reason);
    }
}

#[test]
fn an_answer_without_an_end_is_left_and_costs_no_more_than_its_time() {
    const AT_ONCE: Duration = Duration::from_micros(1);
    let slowly = Duration::from_millis(20);
    let endless = |first, again, pause| Conduct::Endless(first, again, pause);
    let http1 = [
        endless(b"HTTP/1.1 200 OK\r\n", b"x-a: 0123456789abcdef0123456789abcdef\r\n", AT_ONCE),
        endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", AT_ONCE),
        endless(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"\x0a", slowly),
        endless(b"", b"H", slowly),
    ];
    // After SETTINGS: a block of fields that goes on and on, pings, an answer byte by byte.
    let http2 = [
        endless(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x88", b"\0\0\x05\x09\0\0\0\0\x01\0\x01a\x01b", AT_ONCE),
        endless(b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x08\x06\0\0\0\0\0whatever", AT_ONCE),
        endless(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88", b"\0\0\x01\0\0\0\0\0\x01\0", slowly),
    ];
    for (protocol, conducts) in [(Protocol::Http1, http1.to_vec()), (Protocol::Http2, http2.to_vec())] {
        for conduct in conducts {
            run(async move {
                let what = format!("{protocol:?} {conduct:?}");
                let collector = Collector::start(protocol).await;
                collector.meets([conduct]);
                let mut books = Books::open(&collector.target(protocol, ""), "timeout: 500ms");
                let begun = Instant::now();
                books.make(10);
                books.settled().await;
                assert_eq!((books.exported(), collector.taken()), (10, 10), "{what}");
                assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
            });
        }
    }
}

#[test]
fn a_receiver_that_says_at_once_each_time_is_not_asked_all_the_time() {
    for (protocol, act) in [
        (Protocol::Http1, Act::Answer(503, vec![("retry-after", "0".to_owned())], b"")),
        (Protocol::Http2, Act::Status(14, retry_info(0))),
    ] {
        run(async move {
            let collector = Collector::start(protocol).await;
            collector.usually(act);
            let mut books = Books::open(&collector.target(protocol, ""), "backoff: 50ms, giveUp: 500ms");
            books.make(10);
            books.settled().await;
            assert_eq!(books.dropped("\"expired\""), 10);
            assert!(collector.requests() <= 13, "{protocol:?}: {} requests in half a second", collector.requests());
        });
    }
}

#[test]
fn redirects_are_not_followed() {
    run(async {
        let (collector, other) = (Collector::start(Protocol::Http1).await, Collector::start(Protocol::Http1).await);
        for status in [301, 302, 307, 308] {
            let location = ("location", format!("http://{}/v1/traces", other.address));
            collector.will([Act::Answer(status, vec![location], b"")]);
        }
        let mut books = Books::open(&collector.target(Protocol::Http1, ""), "");
        for _ in 0..4 {
            books.make(10);
            books.settled().await;
        }
        assert_eq!((books.dropped("\"redirected\""), other.requests()), (40, 0));
    });
}

#[test]
fn a_receiver_that_names_a_time_is_not_asked_before() {
    for (protocol, act) in [
        (Protocol::Http1, Act::Answer(503, vec![("retry-after", "1".to_owned())], b"")),
        (Protocol::Http2, Act::Status(14, retry_info(1000))),
    ] {
        run(async move {
            let collector = Collector::start(protocol).await;
            collector.will([act]);
            let mut books = Books::open(&collector.target(protocol, ""), "");
            books.make(10);
            books.settled().await;
            let requests = collector.state.requests.borrow();
            let [first, second] = &requests[..] else { panic!("{} requests", requests.len()) };
            assert!(second.at - first.at >= Duration::from_secs(1), "{:?}", second.at - first.at);
        });
    }
}

#[test]
fn connections_that_break_off_cost_nothing() {
    // The first bytes of an answer, of HTTP/1.1 and of HTTP/2: a whole SETTINGS and half a HEADERS.
    let half: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\n\x0a",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x20\x01\x04\0\0\0\x01\x88",
    ];
    for (protocol, half) in BOTH.into_iter().zip(half) {
        run(async move {
            let collector = Collector::start(protocol).await;
            collector.meets([
                Conduct::Cut(b""),
                Conduct::Cut(half),
                Conduct::Cut(b"SSH-2.0-OpenSSH_9.2\r\n"),
                Conduct::Deaf,
                Conduct::Serve,
            ]);
            let mut books = Books::open(&collector.target(protocol, ""), "timeout: 300ms");
            books.make(10);
            books.settled().await;
            assert_eq!((books.exported(), collector.taken()), (10, 10), "{protocol:?}");
            assert_eq!(collector.state.connections.get(), 5);
        });
    }
}

#[test]
fn the_books_balance_under_load_with_every_kind_of_fault_and_after_the_end() {
    for protocol in BOTH {
        run(async move {
            let collector = Collector::start(protocol).await;
            let faults = match protocol {
                Protocol::Http1 => vec![
                    answer(503),
                    answer(400),
                    answer(429),
                    Act::Partial(5, "no"),
                    Act::Answer(200, vec![("content-type", "text/html".to_owned())], b"<html>"),
                    Act::Answer(302, vec![("location", "http://127.0.0.1:1/".to_owned())], b""),
                    Act::Late(Duration::from_millis(20)),
                    answer(413),
                    Act::Hang,
                ],
                Protocol::Http2 => vec![
                    Act::Status(14, Vec::new()),
                    Act::Status(3, Vec::new()),
                    Act::Status(8, Vec::new()),
                    Act::Status(8, retry_info(1)),
                    Act::Partial(5, "no"),
                    Act::Message(b"\xff"),
                    Act::Late(Duration::from_millis(20)),
                    Act::Hang,
                ],
            };
            collector.meets([Conduct::Cut(b""), Conduct::Serve, Conduct::Cut(b"HTTP/1.1 2"), Conduct::Serve]);
            // A request that is taken must not be late, or it is sent twice. Small requests and a small queue, so that the oldest have to go as well.
            let mut books = Books::open(&collector.target(protocol, ""), "timeout: 2s, spans: 50, queue: 64Ki");
            for round in 0..60 {
                collector.will([faults[round % faults.len()].clone()]);
                books.make(100);
                books.balance(256);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            collector.state.acts.borrow_mut().clear();
            books.close(Duration::from_secs(30)).await;
            assert_eq!(books.exported(), collector.taken(), "{protocol:?}");
            assert!(books.exported() > 0 && books.rejected() > 0 && books.dropped("queue_full") > 0);
        });
    }
}

#[test]
fn a_request_that_vanished_shows_in_the_books() {
    for protocol in BOTH {
        run(async move {
            let collector = Collector::start(protocol).await;
            for name in ["forgets", "denies", "there"] {
                let mut books = Books::named(name, &collector.target(protocol, ""), "spans: 50");
                books.make(1000);
                books.end(Duration::from_secs(10)).await;
                let seen = (books.exported(), books.in_flight(), books.wrong(0).is_some());
                let expected = match name {
                    "forgets" => (950, 50, false),
                    "denies" => (950, 0, true),
                    _ => (1000, 0, false),
                };
                assert_eq!(seen, expected, "{protocol:?} {name}");
            }
        });
    }
}

#[test]
fn what_cannot_be_sent_before_the_end_is_counted() {
    for protocol in BOTH {
        for hangs in [true, false] {
            run(async move {
                let collector = Collector::start(protocol).await;
                collector.usually(if hangs { Act::Hang } else { answer_of(protocol) });
                let mut books = Books::open(&collector.target(protocol, ""), "spans: 100, backoff: 1h, backoffMax: 1h");
                books.make(1000);
                let begun = Instant::now();
                books.close(Duration::from_millis(500)).await;
                assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
                assert_eq!((books.exported(), books.dropped("\"ended\"")), (0, 1000), "{protocol:?} {hangs}");
            });
        }
    }
}

/// One after which there is another try.
fn answer_of(protocol: Protocol) -> Act {
    match protocol {
        Protocol::Http1 => answer(503),
        Protocol::Http2 => Act::Status(14, Vec::new()),
    }
}
