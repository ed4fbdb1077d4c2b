//! What W3C Trace Context asks of a vendor, through an application that does nothing for it but copy its headers: a
//! request comes in by the inbound listener, and the application's own goes out by the forward proxy.

use std::cell::RefCell;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, each};

/// Everything between a caller and the one that the application calls.
struct Road {
    proxy: Proxy,
    called: Rc<RefCell<Vec<HeaderMap>>>,
    _app: Origin,
    _origin: Origin,
}

impl Road {
    async fn start(protocol: Protocol) -> Self {
        let called = Rc::<RefCell<Vec<HeaderMap>>>::default();
        let keep = called.clone();
        let origin = Origin::start(Protocol::Http1, move |request| {
            keep.borrow_mut().push(request.headers().clone());
            async { Response::new(full("x")) }
        })
        .await;
        let forward = Rc::<RefCell<Option<std::net::SocketAddr>>>::default();
        let (out, target) = (forward.clone(), origin.address);
        let app = Origin::start(protocol, move |request| {
            let out = out.borrow().expect("the forward proxy");
            let headers = request.headers().clone();
            async move {
                let mut lines = String::new();
                for name in ["traceparent", "tracestate"] {
                    for value in headers.get_all(name) {
                        lines += &format!("{name}: {}\r\n", value.to_str().expect("text"));
                    }
                }
                let mut wire = Wire::connect(out).await;
                wire.write(format!("GET http://{target}/ HTTP/1.1\r\nhost: {target}\r\n{lines}\r\n")).await;
                assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
                Response::new(full("x"))
            }
        })
        .await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             - {{name: out, mode: outbound, address: '127.0.0.1:0'}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
            app.address,
            protocol.word()
        ));
        *forward.borrow_mut() = Some(proxy.address("out"));
        Self { proxy, called, _app: app, _origin: origin }
    }

    /// What was called, of a request with these lines: version, trace, parent, flags, and the tracestate.
    async fn ask(&self, client: &mut Client, lines: &[(&str, &[u8])]) -> ([String; 4], String) {
        let mut request = client.request("GET", "/x");
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).expect("a name");
            request = request.header(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        assert_eq!(client.whole(request.body(empty()).expect("a request")).await.status, 200);
        let headers = self.called.borrow().last().expect("a call").clone();
        let all = |name| headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>();
        let [parent] = all("traceparent")[..] else { panic!("{headers:?}") };
        let parts: Vec<String> = parent.split('-').map(str::to_owned).collect();
        (parts.try_into().expect("four parts"), all("tracestate").join(","))
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn a_trace_goes_on_through_an_application_that_copies_headers() {
    each(|client, upstream| async move {
        let road = Road::start(upstream).await;
        let mut client = Client::connect(client, road.proxy.address("in")).await;
        for (version, tail, flags) in [
            ("00", "-01", "01"),
            ("00", "-00", "00"),
            ("00", "-02", "02"),
            ("00", "-03", "03"),
            // Flags that nobody knows yet are not made up again.
            ("00", "-ff", "03"),
            ("cc", "-01", "01"),
            ("cc", "-01-what-the-future-brings", "01"),
            ("fe", "-09-", "01"),
        ] {
            let value = format!("{version}-{TRACE}-{PARENT}{tail}");
            let (got, _) = road.ask(&mut client, &[("traceparent", value.as_bytes())]).await;
            assert_eq!((got[0].as_str(), got[1].as_str(), got[3].as_str()), ("00", TRACE, flags), "{value}");
            assert!(got[2] != PARENT && got[2].len() == 16, "{value}");
        }
    });
}

#[test]
fn a_traceparent_that_breaks_a_rule_begins_a_new_trace_without_the_old_tracestate() {
    each(|client, upstream| async move {
        let road = Road::start(upstream).await;
        let mut client = Client::connect(client, road.proxy.address("in")).await;
        let good = format!("00-{TRACE}-{PARENT}-01");
        let zeros = |count| "0".repeat(count);
        for bad in [
            String::new(),
            "-".into(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("000-{TRACE}-{PARENT}-01"),
            format!("0x-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", zeros(32)),
            format!("00-{TRACE}-{}-01", zeros(16)),
            format!("00-{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{TRACE}0-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}0-01"),
            format!("00-{TRACE}-{}-01", &PARENT[1..]),
            format!("00-{}.-{PARENT}-01", &TRACE[1..]),
            format!("00-{TRACE}-{}.-01", &PARENT[1..]),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-001"),
            format!("00-{TRACE}-{PARENT}-.0"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("cc-{TRACE}-{PARENT}-01.more"),
            format!("{good},{good}"),
        ] {
            let lines = [("traceparent", bad.as_bytes()), ("tracestate", &b"a=1"[..])];
            let (got, state) = road.ask(&mut client, &lines).await;
            assert!(!got[1].contains(&TRACE[1..]) && got[1] != zeros(32) && got[1].len() == 32, "{bad} {got:?}");
            assert_eq!((got[3].as_str(), state.as_str()), ("03", ""), "{bad}");
        }
        // Twice, the same or not.
        for second in [&good, &format!("00-{TRACE}-00f067aa0ba902b8-00")] {
            let lines = [("traceparent", good.as_bytes()), ("traceparent", second.as_bytes())];
            let (got, _) = road.ask(&mut client, &lines).await;
            assert_ne!(got[1], TRACE, "{second}");
        }
        let (_, state) = road.ask(&mut client, &[("tracestate", b"a=1")]).await;
        assert_eq!(state, "", "a tracestate alone means nothing");
        // Each request begins a trace of its own.
        let (one, _) = road.ask(&mut client, &[]).await;
        let (two, _) = road.ask(&mut client, &[]).await;
        assert!(one[1] != two[1] && one[2] != two[2]);
    });
}

#[test]
fn a_tracestate_stays_as_it_is_or_goes_as_a_whole() {
    each(|client, upstream| async move {
        let road = Road::start(upstream).await;
        let mut client = Client::connect(client, road.proxy.address("in")).await;
        let long = |length: usize| "k".repeat(length);
        let many = |count: usize| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        let all_keys = "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1".to_owned();
        let all_values: String = "k=".chars().chain((' '..='~').filter(|c| !",=".contains(*c))).collect();
        for (lines, kept) in [
            (vec!["a=1,b=2".to_owned()], true),
            (vec!["a=1,b=2".to_owned(), "c=3".to_owned()], true),
            (vec!["a=1,".to_owned(), "b=2".to_owned(), String::new()], true),
            (vec!["a=1 \t ,\t b=2".to_owned()], true),
            (vec!["a=1,a=2".to_owned()], true),
            (vec!["t@v=1,0t@v=2".to_owned()], true),
            (vec![all_keys], true),
            (vec![all_values], true),
            (vec![format!("{}=1", long(256))], true),
            (vec![format!("{}=1", long(257))], false),
            (vec![format!("a={}", long(256))], true),
            (vec![format!("a={}", long(257))], false),
            (vec![many(32)], true),
            (vec![many(33)], false),
            (vec![many(20), many(13)], false),
            (vec!["a=1,B=2".to_owned()], false),
            (vec!["a=1,b =2".to_owned()], false),
            (vec!["a=1,b=2=3".to_owned()], false),
            (vec!["a=1,b".to_owned()], false),
            (vec!["a=1,@v=2".to_owned()], false),
            (vec!["a=1,b=".to_owned()], false),
        ] {
            let parent = format!("00-{TRACE}-{PARENT}-01");
            let mut given = vec![("traceparent", parent.as_bytes())];
            given.extend(lines.iter().map(|line| ("tracestate", line.as_bytes())));
            let (got, state) = road.ask(&mut client, &given).await;
            assert_eq!(got[1], TRACE, "{lines:?}");
            let members = |text: &str| {
                let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
                members.map(str::to_owned).collect::<Vec<_>>()
            };
            let expected = if kept { members(&lines.join(",")) } else { Vec::new() };
            assert_eq!(members(&state), expected, "{lines:?}");
        }
    });
}
