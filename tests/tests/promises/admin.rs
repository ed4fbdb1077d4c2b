//! The two small servers of a running proxy: admin, on loopback and by POST where it changes something, and status,
//! which shows life and numbers and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use spanmesh_tests::{Client, Origin, Protocol, Proxy, run};

#[path = "../../../proxy/src/telemetry/metrics/strict.rs"]
mod strict;

/// The whole answer to a request with these further header lines.
fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: 0\r\n\r\n")
        .expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

const LOCAL: &str = "host: localhost\r\n";

async fn running() -> (Origin, Proxy) {
    let origin = Origin::hello(Protocol::Http1).await;
    let proxy = Proxy::between(origin.address, Protocol::Http1);
    (origin, proxy)
}

#[test]
fn admin_shows_the_configuration_that_runs() {
    run(async {
        let (origin, proxy) = running().await;
        let yaml = proxy.admin("GET", "/config");
        assert!(yaml.contains(&origin.address.to_string()), "{yaml}");
        // It is a configuration: with every default written out it is still right.
        let parsed = spanmesh_proxy::config::parse(&yaml, "shown.yaml", std::iter::empty());
        assert_eq!(parsed.expect("a configuration").listeners[0].name, "in");
    });
}

#[test]
fn what_changes_something_is_post_and_nothing_else() {
    run(async {
        let (_origin, proxy) = running().await;
        let admin = proxy.running().bound.admin;
        for path in ["/drain", "/quitquitquit"] {
            for method in ["GET", "HEAD", "PUT", "DELETE"] {
                let answer = ask(admin, method, path, LOCAL);
                assert_eq!(status(&answer), 405, "{method} {path}");
                assert!(answer.contains("allow: POST"), "{answer}");
            }
        }
        for path in ["/config", "/metrics", "/ready"] {
            assert_eq!(status(&ask(admin, "POST", path, LOCAL)), 405, "{path}");
        }
        assert_eq!(status(&ask(admin, "GET", "/nothing", LOCAL)), 404);
        // It still serves.
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(client.get("/").await.body, "hello");
        assert_eq!(proxy.status("/ready"), "ready\n");
    });
}

#[test]
fn the_log_level_changes_while_it_runs_and_nonsense_is_refused() {
    run(async {
        let (_origin, proxy) = running().await;
        let admin = proxy.running().bound.admin;
        assert_eq!(status(&ask(admin, "POST", "/logging?level=warn,h2=error", LOCAL)), 200);
        let shown = proxy.admin("GET", "/logging");
        // Other proxies of this process share the log and may set it as they start.
        assert!(shown.starts_with("warn"), "{shown}");
        for path in ["/logging?level=loud", "/logging", "/logging?level="] {
            assert_eq!(status(&ask(admin, "POST", path, LOCAL)), 400, "{path}");
        }
    });
}

#[test]
fn a_browsers_page_of_elsewhere_reaches_nothing() {
    run(async {
        let (_origin, proxy) = running().await;
        let admin = proxy.running().bound.admin;
        for headers in [
            "host: evil.example\r\n",
            "host: 10.0.0.1:14000\r\n",
            "host: localhost\r\norigin: http://evil.example\r\n",
            "host: localhost\r\nsec-fetch-site: cross-site\r\n",
            "host: localhost\r\nhost: localhost\r\n",
        ] {
            for (method, path) in [("GET", "/config"), ("POST", "/quitquitquit"), ("POST", "/drain")] {
                assert_eq!(status(&ask(admin, method, path, headers)), 403, "{headers}");
            }
        }
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(client.get("/").await.body, "hello");
    });
}

#[test]
fn a_drain_is_ordered_by_post_and_ends_the_proxy() {
    run(async {
        let (_origin, mut proxy) = running().await;
        assert_eq!(status(&ask(proxy.running().bound.admin, "POST", "/drain", LOCAL)), 202);
        proxy.ended().await;
    });
}

#[test]
fn quitquitquit_ends_it_at_once_whatever_is_in_flight() {
    run(async {
        let (listener, address) = spanmesh_tests::Wire::listen().await;
        let mut proxy = Proxy::between(address, Protocol::Http1);
        let mut client = spanmesh_tests::Wire::connect(proxy.address("in")).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut origin = spanmesh_tests::Wire::accept(&listener).await;
        origin.head().await;
        assert_eq!(status(&ask(proxy.running().bound.admin, "POST", "/quitquitquit", LOCAL)), 202);
        proxy.ended().await;
    });
}

#[test]
fn status_shows_life_readiness_and_metrics_and_nothing_else() {
    run(async {
        let (_origin, proxy) = running().await;
        let address = proxy.running().bound.status;
        // The kubelet calls it by the pod's address.
        for host in ["host: 10.1.2.3:14020\r\n", LOCAL] {
            for path in ["/live", "/ready", "/metrics"] {
                assert_eq!(status(&ask(address, "GET", path, host)), 200, "{path}");
                assert_eq!(status(&ask(address, "HEAD", path, host)), 200, "{path}");
                assert_eq!(status(&ask(address, "POST", path, host)), 405, "{path}");
            }
            for path in ["/", "/help", "/config", "/logging", "/drain", "/quitquitquit"] {
                for method in ["GET", "POST"] {
                    assert_eq!(status(&ask(address, method, path, host)), 404, "{method} {path}");
                }
            }
        }
    });
}

#[test]
fn metrics_are_openmetrics_to_the_letter() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: detect, upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        ));
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            client.get("/").await;
        }
        let mut opaque = spanmesh_tests::Wire::connect(proxy.address("in")).await;
        opaque.write(b"\x00\x01").await;
        drop(opaque);
        proxy.logged(3).await;
        let address = proxy.running().bound.status;
        let answer = ask(address, "GET", "/metrics", LOCAL);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        let samples = strict::parse(body).unwrap_or_else(|error| panic!("{error}\n{body}"));
        let requests = samples.iter().filter(|sample| sample.name == "spanmesh_proxy_requests_total");
        assert_eq!(requests.map(|sample| sample.value).sum::<f64>(), 2.0);
        assert!(samples.iter().all(|sample| sample.name.starts_with("spanmesh_proxy_")));
        assert!(samples.iter().any(|sample| sample.labels.contains(&("listener".into(), "in".into()))));
    });
}
